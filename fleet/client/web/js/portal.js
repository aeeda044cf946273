// The calls to the portal: four, and the stream. The portal is not trusted for what it answers; what
// matters is checked elsewhere (believe.js), and the rest is shown as the portal's word.

import { fromBase64, toBase64 } from "./bytes.js";
import { Told } from "./errors.js";

const PATIENCE_MS = 20_000;
const MAX_ANSWER = 512 * 1024; // characters
const STATES = new Set([
  "requested", "accepted", "waiting", "challenged", "presence", "active", "refused", "expired",
  "ended",
]);
export const OVER = new Set(["refused", "expired", "ended"]);
const PROTOCOL = "patency.stream.1";

/** The portal, with a pass for one session. `language` is a tag for what it says in words. */
export class Portal {
  #url;
  #language;
  #token;

  constructor({ url, language, token = null }) {
    this.#url = url;
    this.#language = language;
    this.#token = token;
  }

  /** Give the ticket of the link for a pass, once: {session, token}. */
  async redeem(ticket) {
    const pass = await this.#call("POST", "pass/", { ticket });
    if (typeof pass?.token !== "string" || !/^[0-9a-f]{32}$/.test(pass?.session)) {
      throw new Told("portal_strange");
    }
    this.#token = pass.token;
    return { session: pass.session, token: pass.token };
  }

  /** The session, its bytes decoded: {state, reason, serial, challenge, …}. */
  async session() {
    return shown(await this.#call("GET", "session/"));
  }

  async answer(clientKey, proof) {
    const body = { client_key: toBase64(clientKey), proof };
    return shown(await this.#call("POST", "session/answer/", body));
  }

  async end() {
    return shown(await this.#call("POST", "session/end/"));
  }

  /** The stream's websocket. The pass goes in a header, never in an address, which gets logged. */
  stream(session) {
    const url = `${this.#url.replace(/^http/, "ws")}/ws/stream/${session}`;
    const socket = new WebSocket(url, [PROTOCOL, `bearer.${this.#token}`]);
    socket.binaryType = "arraybuffer";
    return socket;
  }

  async #call(method, path, body) {
    let answer;
    let text;
    try {
      answer = await fetch(`${this.#url}/api/v1/access/browser/${path}`, {
        method,
        headers: {
          Accept: "application/json",
          "Accept-Language": this.#language,
          ...(body ? { "Content-Type": "application/json" } : {}),
          ...(this.#token ? { Authorization: `Bearer ${this.#token}` } : {}),
        },
        body: body && JSON.stringify(body),
        credentials: "omit",
        cache: "no-store",
        redirect: "error",
        referrerPolicy: "no-referrer",
        signal: AbortSignal.timeout(PATIENCE_MS),
      });
      text = await answer.text();
    } catch {
      throw new Told("portal_away");
    }
    return this.#read(answer, text);
  }

  #read(answer, text) {
    let value = null;
    try {
      value = text.length <= MAX_ANSWER ? JSON.parse(text) : null;
    } catch {
      // said below
    }
    if (answer.ok && value !== null) return value;
    if (answer.ok || answer.status >= 500) throw new Told(answer.ok ? "portal_strange" : "portal_away");
    const detail = typeof value?.detail === "string" ? value.detail.slice(0, 500) : "";
    if (answer.status === 401) throw new Told("pass_refused", { detail });
    throw new Told("portal_declined", { detail });
  }
}

/** What is read of a session; anything else may be there as well. */
function shown(value) {
  const blob = (text) => (text === null ? null : fromBase64(text));
  try {
    if (!STATES.has(value.state)) throw new TypeError("a state that is not known here");
    const certificates = value.certificates.map(fromBase64);
    return {
      state: value.state,
      reason: typeof value.state_reason === "string" ? value.state_reason : null,
      serial: String(value.serial).slice(0, 40),
      challenge: blob(value.challenge),
      signature: blob(value.challenge_signature),
      certificates,
      request: fromBase64(value.request),
    };
  } catch {
    throw new Told("portal_strange");
  }
}
