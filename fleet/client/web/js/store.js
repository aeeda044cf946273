// What this browser remembers of a session, so that a page loaded again goes on: its key, which
// cannot be read out, and how often it was used. The pass stays in the tab.

const NAME = "patency-access";
const STORE = "sessions";
const MAX_EPOCH = 2 ** 16 - 1;
const KEPT_MS = 48 * 3600 * 1000; // a session lives 8 hours at most
const PASS = "patency.pass";

/** The pass of this tab: {session, token} or null. */
export function readPass() {
  try {
    return JSON.parse(sessionStorage.getItem(PASS));
  } catch {
    return null;
  }
}

export function keepPass(pass) {
  try {
    sessionStorage.setItem(PASS, JSON.stringify(pass));
  } catch {
    // storage may be forbidden: then a page loaded again needs a new link
  }
}

export function dropPass() {
  try {
    sessionStorage.removeItem(PASS);
  } catch {
    // nothing was kept
  }
}

function done(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** {session, challenge, pair, public, epoch, at} by session. */
export class Sessions {
  #memory = new Map(); // where there is no database: in a private window, say
  #database = null;

  async open() {
    try {
      const request = indexedDB.open(NAME, 1);
      request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "session" });
      this.#database = await done(request);
      await this.#tidy();
    } catch {
      this.#database = null;
    }
  }

  async get(session) {
    const kept = this.#memory.get(session);
    if (kept || !this.#database) return kept ?? null;
    return (await done(this.#store("readonly").get(session))) ?? null;
  }

  async save(it) {
    if (this.#database) {
      try {
        await done(this.#store("readwrite").put(it));
        return;
      } catch {
        // some private windows keep no keys
      }
    }
    this.#memory.set(it.session, it);
  }

  async forget(session) {
    this.#memory.delete(session);
    if (this.#database) await done(this.#store("readwrite").delete(session));
  }

  /** A number for this page's streams that no page had in this session; null when all are used. */
  async takeEpoch(session) {
    const kept = this.#memory.get(session);
    if (kept) return kept.epoch < MAX_EPOCH ? ++kept.epoch : null;
    // One transaction: another tab cannot take the same.
    const store = this.#store("readwrite");
    const it = await done(store.get(session));
    if (!it || it.epoch >= MAX_EPOCH) return null;
    it.epoch += 1;
    await done(store.put(it));
    return it.epoch;
  }

  #store(mode) {
    return this.#database.transaction(STORE, mode, { durability: "strict" }).objectStore(STORE);
  }

  async #tidy() {
    for (const it of await done(this.#store("readonly").getAll())) {
      if (Date.now() - it.at > KEPT_MS) await this.forget(it.session);
    }
  }
}
