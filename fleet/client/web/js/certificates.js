// Whether an injector's certificates lead to the device root, and whether its key signed something.
//
// Browsers check certificates for connections, and for nothing else; so it is done here, for the one
// profile that injectors have (docs/ca.md): ECDSA keys, at most four certificates, a leaf for clients
// that names its device. What does not fit that profile is refused, whatever it may mean elsewhere.

import { equal } from "./bytes.js";
import { DerError, rawSignature, Reader, Tag } from "./der.js";

/** Certificates that are not to be believed; `code` says why. */
export class CertificateError extends Error {
  constructor(code) {
    super(code);
    this.code = code;
  }
}

const MAX_CHAIN = 4;
const CURVES = {
  "1.2.840.10045.3.1.7": { namedCurve: "P-256", size: 32 },
  "1.3.132.0.34": { namedCurve: "P-384", size: 48 },
};
const HASHES = { "1.2.840.10045.4.3.2": "SHA-256", "1.2.840.10045.4.3.3": "SHA-384" };
const EC_KEY = "1.2.840.10045.2.1";
const COMMON_NAME = "2.5.4.3";
const SUBJECT_KEY = "2.5.29.14";
const KEY_USAGE = "2.5.29.15";
const NAMES = "2.5.29.17";
const BASIC = "2.5.29.19";
const AUTHORITY_KEY = "2.5.29.35";
const PURPOSES = "2.5.29.37";
const CLIENTS = "1.3.6.1.5.5.7.3.2";
const SIGNS = 0x80; // in the first byte of a key's usage
const ISSUES = 0x04;
const DEVICE = /^[A-Za-z0-9_-]{8,64}$/;

/**
 * The injector that the leaf names, with the check of its signatures: {device, notAfter, check}.
 * `chain` has the leaf first; both lists are DER. Throws CertificateError.
 */
export async function verify({ chain, roots, now }) {
  if (!chain.length || chain.length > MAX_CHAIN) throw new CertificateError("unreadable");
  const [leaf, ...others] = chain.map(read);
  asLeaf(leaf);
  await lead(leaf, others, roots.map(read), now, 0);
  return {
    device: leaf.name,
    notAfter: leaf.notAfter,
    check: (message, signature) => checkSignature(leaf, "SHA-256", signature, message),
  };
}

/** Throws unless this certificate, in date, was issued under a root. `below`: CAs passed. */
async function lead(certificate, others, roots, now, below) {
  if (now < certificate.notBefore || now > certificate.notAfter) {
    throw new CertificateError("out_of_date");
  }
  for (const issuer of [...roots, ...others]) {
    if (!equal(issuer.subject, certificate.issuer)) continue;
    if (!issuer.isAuthority || below > issuer.mostBelow) continue;
    if (!(await signed(certificate, issuer))) continue;
    if (roots.includes(issuer)) {
      if (now < issuer.notBefore || now > issuer.notAfter) continue;
      return;
    }
    await lead(issuer, others.filter((it) => it !== issuer), roots, now, below + 1);
    return;
  }
  throw new CertificateError("not_from_root");
}

async function signed(certificate, issuer) {
  try {
    await checkSignature(issuer, certificate.hash, certificate.signature, certificate.tbs);
    return true;
  } catch (error) {
    if (error instanceof CertificateError) return false;
    throw error;
  }
}

/** Throws CertificateError unless the certificate's key made this DER signature. */
async function checkSignature({ key, curve }, hash, signature, message) {
  let raw;
  try {
    raw = rawSignature(signature, curve.size);
  } catch (error) {
    if (error instanceof DerError) throw new CertificateError("bad_signature");
    throw error;
  }
  const { namedCurve } = curve;
  let known;
  try {
    known = await crypto.subtle.importKey("raw", key, { name: "ECDSA", namedCurve }, false, ["verify"]);
  } catch {
    throw new CertificateError("unreadable"); // a point that is not on its curve
  }
  if (!(await crypto.subtle.verify({ name: "ECDSA", hash }, known, raw, message))) {
    throw new CertificateError("bad_signature");
  }
}

function asLeaf(it) {
  if (it.isAuthority || !it.signs || !it.purposes?.includes(CLIENTS)) {
    throw new CertificateError("wrong_kind");
  }
  const uri = `spiffe://patency/device/${it.name}`;
  if (!DEVICE.test(it.name) || it.uris.length !== 1 || it.uris[0] !== uri) {
    throw new CertificateError("names_no_device");
  }
}

// --- reading ------------------------------------------------------------------------------------

function read(der) {
  try {
    return certificate(der);
  } catch (error) {
    if (error instanceof DerError) throw new CertificateError("unreadable");
    throw error;
  }
}

function certificate(der) {
  const whole = Reader.inside(der, Tag.SEQUENCE);
  const tbs = whole.take(Tag.SEQUENCE);
  const algorithm = whole.take(Tag.SEQUENCE);
  const signature = whole.bits();
  whole.end();
  const inner = new Reader(tbs.contents);
  if (inner.enter(0xa0).number() !== 2) throw new DerError("not version 3");
  const serial = inner.take(Tag.INTEGER).contents;
  if (!serial.length || serial.length > 20) throw new DerError("a serial number out of bounds");
  if (!equal(inner.take(Tag.SEQUENCE).whole, algorithm.whole)) throw new DerError("two algorithms");
  const issuer = inner.take(Tag.SEQUENCE).whole;
  const dates = inner.enter(Tag.SEQUENCE);
  const [notBefore, notAfter] = [dates.time(), dates.time()];
  dates.end();
  const subject = inner.take(Tag.SEQUENCE).whole;
  const key = publicKey(inner.enter(Tag.SEQUENCE));
  const extra = extensions(inner.enter(0xa3));
  inner.end();
  return {
    tbs: tbs.whole, signature, hash: hashOf(algorithm), issuer, subject, notBefore, notAfter,
    name: commonName(subject), ...key, ...extra,
  };
}

function hashOf(algorithm) {
  const reader = new Reader(algorithm.contents);
  const hash = HASHES[reader.oid()];
  reader.end();
  if (!hash) throw new DerError("an algorithm that is not known here");
  return hash;
}

function publicKey(info) {
  const algorithm = info.enter(Tag.SEQUENCE);
  if (algorithm.oid() !== EC_KEY) throw new DerError("a key of another kind");
  const curve = CURVES[algorithm.oid()];
  algorithm.end();
  const key = info.bits();
  info.end();
  if (!curve || key.length !== 1 + 2 * curve.size || key[0] !== 4) {
    throw new DerError("a key of another kind");
  }
  return { key, curve };
}

/** The one common name of a subject that has exactly one, else an empty text. */
function commonName(subject) {
  const names = [];
  const sets = Reader.inside(subject, Tag.SEQUENCE);
  while (sets.more) {
    const set = sets.enter(Tag.SET);
    while (set.more) {
      const pair = set.enter(Tag.SEQUENCE);
      const type = pair.oid();
      const value = pair.any();
      pair.end();
      if (type !== COMMON_NAME) continue;
      if (value.tag !== Tag.UTF8 && value.tag !== Tag.PRINTABLE) throw new DerError("a name's form");
      names.push(String.fromCharCode(...value.contents));
    }
  }
  return names.length === 1 ? names[0] : "";
}

function extensions(outer) {
  const found = { isAuthority: false, mostBelow: 0, signs: false, purposes: null, uris: [] };
  const all = outer.enter(Tag.SEQUENCE);
  outer.end();
  const seen = new Set();
  let usage = null;
  while (all.more) {
    const one = all.enter(Tag.SEQUENCE);
    const type = one.oid();
    const isCritical = one.peek() === Tag.BOOLEAN && one.boolean();
    const value = one.take(Tag.OCTETS).contents;
    one.end();
    if (seen.has(type)) throw new DerError("an extension twice");
    seen.add(type);
    if (type === BASIC) Object.assign(found, basic(value));
    else if (type === KEY_USAGE) usage = usageOf(value);
    else if (type === PURPOSES) found.purposes = purposesOf(value);
    else if (type === NAMES) found.uris = urisOf(value);
    else if (isCritical && type !== SUBJECT_KEY && type !== AUTHORITY_KEY) {
      throw new DerError("a critical extension that is not known here");
    }
  }
  found.signs = usage !== null && (usage & SIGNS) !== 0;
  if (usage === null || !(usage & ISSUES)) found.isAuthority = false;
  return found;
}

function basic(value) {
  const inside = Reader.inside(value, Tag.SEQUENCE);
  const isAuthority = inside.peek() === Tag.BOOLEAN && inside.boolean();
  const mostBelow = inside.more ? inside.number() : Infinity;
  inside.end();
  return { isAuthority, mostBelow };
}

function usageOf(value) {
  const outer = new Reader(value);
  const { contents } = outer.take(Tag.BITS);
  outer.end();
  if (contents.length < 2 || contents[0] > 7) throw new DerError("a usage in another form");
  return contents[1];
}

function purposesOf(value) {
  const inside = Reader.inside(value, Tag.SEQUENCE);
  const found = [];
  while (inside.more) found.push(inside.oid());
  return found;
}

function urisOf(value) {
  const inside = Reader.inside(value, Tag.SEQUENCE);
  const found = [];
  while (inside.more) {
    const { tag, contents } = inside.any();
    if (tag === 0x86) found.push(String.fromCharCode(...contents)); // uniformResourceIdentifier
  }
  return found;
}
