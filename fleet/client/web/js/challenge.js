// What a device makes a specialist sign, and the code that both sides compute from it
// (docs/protocol.md, 4.1 to 4.3). The exact bytes travel; nobody encodes them again.

import { concat, sha256, utf8 } from "./bytes.js";
import * as schema from "./schema.js";

const ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"; // Crockford: no I, L, O, U
const ROUNDS = 100_000; // a portal in the middle would search for a matching code through this

/** The bytes are no challenge of this version, or not in canonical form. */
export class ChallengeError extends Error {}

const TERMS = {
  v: schema.oneOf(1),
  session: schema.hex(32),
  request: schema.hex(64), // SHA-256 of the access request as the device received it
  device: schema.deviceId,
  specialist: schema.personId,
  level: schema.level,
  services: schema.list(schema.service, 1, 8),
  life_s: schema.whole(60, 8 * 3600),
  presence: schema.flag, // whether a person at the injector will be asked
  boot: schema.hex(32),
  nonce: schema.hex(64),
  key: schema.bytes(32), // the device's X25519 key, made for this session
};

/** Read the terms. Throws ChallengeError unless the bytes are exactly canonical. */
export function decode(challenge) {
  let terms;
  try {
    terms = schema.decode(challenge, TERMS);
  } catch (error) {
    throw new ChallengeError(error.message);
  }
  if (!schema.isCanonical(challenge)) {
    throw new ChallengeError("the challenge is not in canonical form");
  }
  return terms;
}

/** SHA-256 of the exact bytes: the seal's binding and the receipt's reference. */
export function digest(challenge) {
  return sha256(challenge);
}

/** What the specialist's passkey signs; WebAuthn calls this its challenge. */
export function toSign(challenge, clientKey) {
  return sha256(concat(challenge, clientKey));
}

/** The code a person compares, as `XXXX-XXXX`: 40 bits, slow to search for. */
export async function code(challenge) {
  const password = await crypto.subtle.importKey("raw", challenge, "PBKDF2", false, ["deriveBits"]);
  const how = {
    name: "PBKDF2",
    hash: "SHA-256",
    salt: utf8("patency code 1"),
    iterations: ROUNDS,
  };
  const five = new Uint8Array(await crypto.subtle.deriveBits(how, password, 40));
  const bits = five.reduce((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
  let letters = "";
  for (let shift = 35n; shift >= 0n; shift -= 5n) letters += ALPHABET[Number((bits >> shift) & 31n)];
  return `${letters.slice(0, 4)}-${letters.slice(4)}`;
}
