// Whether to believe a challenge. Pure. Everything here comes through the portal, which is not
// trusted for it. The rules, in order (docs/protocol.md, 4.1):
//
// 1. the certificates are in date and lead to the device root, which this client has out of band;
// 2. the leaf's key signed the exact bytes of the challenge;
// 3. the leaf's common name is the device in the challenge, and in the request;
// 4. the challenge is for this session, and its `request` is the digest of the request's bytes;
// 5. the terms of the challenge are those of the request.
//
// What this cannot know is whether it is what the specialist meant to ask for: a person reads it.

import { sha256, toHex } from "./bytes.js";
import * as certificates from "./certificates.js";
import * as challenge from "./challenge.js";
import * as request from "./request.js";
import { SchemaError } from "./schema.js";

/** A challenge that must not be signed; `code` names the rule that it breaks. */
export class NotBelieved extends Error {
  constructor(code) {
    super(code);
    this.code = code;
  }
}

/**
 * The terms, the request behind them and the code to compare: {terms, asked, code, digest, notAfter}.
 * `shown` has challenge, signature, certificates and request as bytes. Throws NotBelieved.
 */
export async function believe({ shown, session, roots, now }) {
  const found = await certified({ shown, roots, now });
  const terms = read(() => challenge.decode(shown.challenge), "challenge_form");
  if (terms.session !== session) throw new NotBelieved("other_session");
  if (toHex(await sha256(shown.request)) !== terms.request) throw new NotBelieved("other_request");
  const asked = read(() => request.decode(shown.request), "request_form");
  if (found.device !== terms.device || asked.device !== terms.device) {
    throw new NotBelieved("other_device");
  }
  if (asked.session !== session) throw new NotBelieved("other_session");
  for (const name of ["specialist", "level", "life_s"]) {
    if (terms[name] !== asked[name]) throw new NotBelieved("other_terms");
  }
  if (terms.services.join() !== asked.services.join()) throw new NotBelieved("other_terms");
  const [code, digest] = await Promise.all([
    challenge.code(shown.challenge),
    challenge.digest(shown.challenge),
  ]);
  return { terms, asked, code, digest, notAfter: found.notAfter };
}

async function certified({ shown, roots, now }) {
  try {
    const found = await certificates.verify({ chain: shown.certificates, roots, now });
    await found.check(shown.challenge, shown.signature);
    return found;
  } catch (error) {
    if (error instanceof certificates.CertificateError) throw new NotBelieved(error.code);
    throw error;
  }
}

function read(reader, code) {
  try {
    return reader();
  } catch (error) {
    if (error instanceof SchemaError || error instanceof challenge.ChallengeError) {
      throw new NotBelieved(code);
    }
    throw error;
  }
}

