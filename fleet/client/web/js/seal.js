// End-to-end sealing of stream frames: X25519, HKDF-SHA256, AES-256-GCM (docs/protocol.md, 5).
// All of it is the browser's own WebCrypto; the keys cannot be read out of it again.

import { concat, equal, utf8 } from "./bytes.js";
import { HEADER, pack, parse } from "./frames.js";

/** A frame that was not sealed by the other end of this session, or was altered. */
export class SealError extends Error {}

export const Role = Object.freeze({ CLIENT: "client", DEVICE: "device" });

function peerOf(role) {
  return role === Role.CLIENT ? Role.DEVICE : Role.CLIENT;
}

/** A key pair for one session. Throws NotSupportedError where the browser knows no X25519. */
export async function newKey() {
  return crypto.subtle.generateKey("X25519", false, ["deriveBits"]);
}

export async function publicBytes(pair) {
  return new Uint8Array(await crypto.subtle.exportKey("raw", pair.publicKey));
}

/** Seals what `role` sends and opens what its peer sent. Holds two keys and no counters. */
export class Seal {
  #send;
  #receive;

  constructor({ session, role, send, receive }) {
    this.session = session;
    this.role = role;
    this.#send = send;
    this.#receive = receive;
  }

  /** Header and sealed payload, ready for the wire. Never for two payloads of one number. */
  async close(header, plaintext) {
    const how = gcm(header, this.role);
    const sealed = await crypto.subtle.encrypt(how, this.#send, plaintext);
    return concat(pack(header), new Uint8Array(sealed));
  }

  /** Header and payload. Throws FrameError or SealError. */
  async open(frame) {
    const header = parse(frame);
    if (!equal(header.session, this.session)) {
      throw new SealError("the frame belongs to another session");
    }
    const how = gcm(header, peerOf(this.role));
    try {
      const plain = await crypto.subtle.decrypt(how, this.#receive, frame.subarray(HEADER));
      return { header, payload: new Uint8Array(plain) };
    } catch (error) {
      if (error.name !== "OperationError") throw error;
      throw new SealError("the frame was not sealed for this session");
    }
  }
}

function gcm(header, sender) {
  const iv = new Uint8Array(12);
  const nonce = new DataView(iv.buffer);
  nonce.setUint32(0, header.stream);
  nonce.setBigUint64(4, header.number);
  const rest = new Uint8Array(13);
  const view = new DataView(rest.buffer);
  rest[0] = header.type;
  view.setUint32(1, header.stream);
  view.setBigUint64(5, header.offset);
  const additionalData = concat(header.session, utf8(sender), rest);
  return { name: "AES-GCM", iv, additionalData, tagLength: 128 };
}

/**
 * The seal of a session. `binding` is the SHA-256 of what both ends agreed on: the challenge's
 * bytes. Throws SealError when `peer` is no usable public key.
 */
export async function derive({ privateKey, peer, binding, session, role }) {
  const shared = await exchange(privateKey, peer);
  const material = await crypto.subtle.importKey("raw", shared, "HKDF", false, ["deriveKey"]);
  const key = (sender, use) =>
    crypto.subtle.deriveKey(
      {
        name: "HKDF",
        hash: "SHA-256",
        salt: binding,
        info: concat(utf8(`patency seal 1 ${sender}`), session),
      },
      material,
      { name: "AES-GCM", length: 256 },
      false,
      [use],
    );
  const [send, receive] = await Promise.all([key(role, "encrypt"), key(peerOf(role), "decrypt")]);
  return new Seal({ session, role, send, receive });
}

async function exchange(privateKey, peer) {
  try {
    const known = await crypto.subtle.importKey("raw", peer, "X25519", false, []);
    const how = { name: "X25519", public: known };
    const shared = new Uint8Array(await crypto.subtle.deriveBits(how, privateKey, 256));
    if (shared.some((byte) => byte)) return shared;
  } catch (error) {
    if (error.name !== "OperationError" && error.name !== "DataError") throw error;
  }
  throw new SealError("the other end's key cannot be used");
}
