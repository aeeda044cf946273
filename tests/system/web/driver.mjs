// Calls the browser client's modules as a test says. In node it reads a line of JSON and writes one;
// in a page, a test calls `answer` itself. Bytes are hexadecimal digits.

// Debian 12's node has WebCrypto, but not under its global name.
if (!globalThis.crypto) globalThis.crypto = (await import("node:crypto")).webcrypto;

const PKCS8 = "302e020100300506032b656e04220420"; // an X25519 private key follows
const muxes = new Map();
let modules;

async function load(base) {
  const names = [
    "bytes", "frames", "seal", "challenge", "mux", "mux_events", "certificates", "request",
    "pieces",
  ];
  const found = await Promise.all(names.map((name) => import(`${base}${name}.js`)));
  modules = Object.fromEntries(names.map((name, at) => [name, found[at]]));
}

const hex = (bytes) => modules.bytes.toHex(bytes);
const raw = (text) => modules.bytes.fromHex(text);

function header(it) {
  const { session, type, stream, number, offset } = it;
  return { session: raw(session), type, stream, number: BigInt(number), offset: BigInt(offset) };
}

const operations = {
  async seals({ sessions }) {
    return Promise.all(sessions.map(oneSession));
  },

  async challenges({ challenges }) {
    return Promise.all(challenges.map(oneChallenge));
  },

  /** A mux with a seal of known keys, so that a test can be the other end. */
  async newMux({ id, session, send, receive, options }) {
    const key = (bytes, use) =>
      crypto.subtle.importKey("raw", raw(bytes), "AES-GCM", false, [use]);
    const seal = new modules.seal.Seal({
      session: raw(session),
      role: modules.seal.Role.CLIENT,
      send: await key(send, "encrypt"),
      receive: await key(receive, "decrypt"),
    });
    const mux = new modules.mux.Mux({ session: raw(session), ...options });
    muxes.set(id, { mux, seal });
  },

  async dropMux({ id }) {
    muxes.delete(id);
  },

  async call({ id, method, args }) {
    const { mux } = muxes.get(id);
    if (method === "send") args[1] = raw(args[1]);
    return mux[method](...args);
  },

  async look({ id, property }) {
    return muxes.get(id).mux[property];
  },

  async receive({ id, frame }) {
    const { mux, seal } = muxes.get(id);
    if (!mux.wants(modules.frames.parse(raw(frame)))) return [];
    const { header, payload } = await seal.open(raw(frame));
    return mux.receive(header, payload).map((event) => {
      return event.data ? { ...event, data: hex(event.data) } : event;
    });
  },

  async nextFrame({ id }) {
    const { mux, seal } = muxes.get(id);
    const out = mux.nextFrame();
    return out && hex(await out.seal(seal));
  },

  async certificate({ chain, roots, now, challenge, signature }) {
    const found = await modules.certificates.verify({
      chain: chain.map(raw),
      roots: roots.map(raw),
      now: new Date(now),
    });
    if (challenge !== undefined) await found.check(raw(challenge), raw(signature));
    return found.device;
  },

  async pieces({ typed, size, received }) {
    const reader = new modules.pieces.Reader();
    return {
      typed: hex(modules.pieces.data(raw(typed))),
      size: hex(modules.pieces.size(...size)),
      received: received
        .flatMap((each) => reader.feed(raw(each)))
        .map((each) => (each.data ? hex(each.data) : each.status)),
    };
  },

  async request({ payload }) {
    return modules.request.decode(raw(payload));
  },
};

async function oneSession(it) {
  const privateKey = await crypto.subtle.importKey(
    "pkcs8", raw(PKCS8 + it.private), "X25519", false, ["deriveBits"],
  );
  const seal = await modules.seal.derive({
    privateKey,
    peer: raw(it.peer),
    binding: raw(it.binding),
    session: raw(it.session),
    role: it.role,
  });
  const closed = it.close.map(async (each) =>
    hex(await seal.close(header(each), raw(each.plaintext))),
  );
  const opened = it.open.map(async (frame) => {
    try {
      const { header: it, payload } = await seal.open(raw(frame));
      return [it.type, it.stream, String(it.number), String(it.offset), hex(payload)];
    } catch (error) {
      return error.constructor.name;
    }
  });
  return { closed: await Promise.all(closed), opened: await Promise.all(opened) };
}

async function oneChallenge(it) {
  const data = raw(it.challenge);
  const found = {};
  try {
    const terms = modules.challenge.decode(data);
    found.terms = { ...terms, key: hex(terms.key) };
  } catch (error) {
    found.error = error.constructor.name;
  }
  found.digest = hex(await modules.challenge.digest(data));
  found.toSign = hex(await modules.challenge.toSign(data, raw(it.client_key)));
  if (it.code) found.code = await modules.challenge.code(data);
  return found;
}

/** One operation: {result}, or {error, code, detail} of what it threw. */
export async function answer(line) {
  const { op, ...rest } = JSON.parse(line);
  try {
    if (op === "load") return JSON.stringify({ result: (await load(rest.base)) ?? null });
    return JSON.stringify({ result: (await operations[op](rest)) ?? null });
  } catch (error) {
    const { code, message } = error;
    return JSON.stringify({ error: error.constructor.name, code, detail: message });
  }
}

if (typeof process !== "undefined") {
  const { createInterface } = await import("node:readline");
  for await (const line of createInterface({ input: process.stdin })) {
    process.stdout.write(`${await answer(line)}\n`);
  }
}
