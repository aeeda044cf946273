// The access passkey: made at this origin, and good for nothing but an injector's challenge.

import { concat, fromUtf8, sha256, toBase64, toHex, utf8 } from "./bytes.js";
import { Told } from "./errors.js";

const PATIENCE_MS = 120_000;
const ES256 = -7;
const EDDSA = -8;
const VERIFIED = 0x04; // flag: the authenticator has verified who touched it
const FLAGS_AT = 32; // in the authenticator's data, behind the digest of the RP id
const SPKI_P256 = 91; // bytes; the point's two halves are its last 64
const SPKI_ED25519 = 44; // bytes; the key is its last 32

async function ask(what) {
  try {
    return await what();
  } catch (error) {
    // The browser does not say which: not found, cancelled, or too slow.
    if (error.name === "NotAllowedError") throw new Told("passkey_not_given");
    if (error.name === "InvalidStateError") throw new Told("passkey_there_already");
    if (error.name === "NotSupportedError") throw new Told("passkey_kind");
    throw new Told("passkey_failed", { detail: String(error.name) });
  }
}

/** Sign 32 bytes for this specialist. Returns the proof as the injector reads it. Throws Told. */
export async function sign(toSign, specialist) {
  const found = await ask(() =>
    navigator.credentials.get({
      publicKey: {
        challenge: toSign,
        rpId: location.hostname,
        userVerification: "required",
        timeout: PATIENCE_MS,
      },
    }),
  );
  const { response } = found;
  const data = new Uint8Array(response.authenticatorData);
  if (!(data[FLAGS_AT] & VERIFIED)) throw new Told("passkey_unverified");
  const owner = response.userHandle ? ownerOf(response.userHandle) : specialist;
  if (owner !== specialist) throw new Told("passkey_of_another", { owner, specialist });
  return {
    kind: "passkey",
    id: toBase64(new Uint8Array(found.rawId)),
    authenticator_data: toBase64(data),
    client_data: toBase64(new Uint8Array(response.clientDataJSON)),
    signature: toBase64(new Uint8Array(response.signature)),
  };
}

function ownerOf(handle) {
  try {
    return fromUtf8(new Uint8Array(handle));
  } catch {
    return "?";
  }
}

/** A new passkey of this specialist: {id, key} as bytes, the key in COSE form. Throws Told. */
export async function create(specialist, name) {
  const made = await ask(() =>
    navigator.credentials.create({
      publicKey: {
        rp: { id: location.hostname, name: "Patency access" },
        user: { id: utf8(specialist), name: specialist, displayName: name },
        challenge: crypto.getRandomValues(new Uint8Array(32)), // nobody checks it: nothing is sent
        pubKeyCredParams: [ES256, EDDSA].map((alg) => ({ type: "public-key", alg })),
        authenticatorSelection: { residentKey: "required", requireResidentKey: true,
          userVerification: "required" },
        attestation: "none",
        timeout: PATIENCE_MS,
      },
    }),
  );
  const { response } = made;
  const data = new Uint8Array(response.getAuthenticatorData());
  if (!(data[FLAGS_AT] & VERIFIED)) throw new Told("passkey_unverified");
  const spki = new Uint8Array(response.getPublicKey() ?? []);
  return { id: new Uint8Array(made.rawId), key: cose(response.getPublicKeyAlgorithm(), spki) };
}

/** A COSE_Key (RFC 9053) in its one shortest form, from what the browser gives (SPKI). */
export function cose(algorithm, spki) {
  if (algorithm === ES256 && spki.length === SPKI_P256) {
    const [x, y] = [spki.subarray(27, 59), spki.subarray(59)];
    // {1: 2 (EC2), 3: -7 (ES256), -1: 1 (P-256), -2: x, -3: y}
    const head = [0xa5, 0x01, 0x02, 0x03, 0x26, 0x20, 0x01, 0x21, 0x58, 0x20];
    return concat(new Uint8Array(head), x, new Uint8Array([0x22, 0x58, 0x20]), y);
  }
  if (algorithm === EDDSA && spki.length === SPKI_ED25519) {
    // {1: 1 (OKP), 3: -8 (EdDSA), -1: 6 (Ed25519), -2: x}
    const head = [0xa4, 0x01, 0x01, 0x03, 0x27, 0x20, 0x06, 0x21, 0x58, 0x20];
    return concat(new Uint8Array(head), spki.subarray(12));
  }
  throw new Told("passkey_kind");
}

/** The fingerprint to read over the telephone, as `patency trust sign` shows it to its keeper. */
export async function fingerprint(id, key) {
  const digits = toHex(await sha256(concat(id, key))).slice(0, 40);
  return digits.match(/.{5}/g).join("-");
}
