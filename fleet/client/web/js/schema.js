// Closed schemas, as the wire has them: a field that is not named, a missing one, a number out of
// bounds or text that does not fit its pattern makes the whole refused (docs/protocol.md, 2).

import { equal, fromBase64, fromUtf8, utf8 } from "./bytes.js";

/** Bytes that are not what they should be. */
export class SchemaError extends Error {}

const check = (fits) => (value) => {
  if (!fits(value)) throw new SchemaError();
  return value;
};

export const text = (pattern, most = Infinity) =>
  check((value) => typeof value === "string" && [...value].length <= most && pattern.test(value));
export const whole = (least, most) =>
  check((value) => Number.isSafeInteger(value) && value >= least && value <= most);
export const oneOf = (...codes) => check((value) => codes.includes(value));
export const flag = check((value) => typeof value === "boolean");
export const orNull = (inner) => (value) => (value === null ? null : inner(value));
export const bytes = (size) => (value) => {
  const read = fromBase64(check((it) => typeof it === "string")(value));
  if (read.length !== size) throw new SchemaError();
  return read;
};
export const list = (inner, least, most) => (value) => {
  if (!Array.isArray(value) || value.length < least || value.length > most) throw new SchemaError();
  return value.map(inner);
};

export const hex = (digits) => text(new RegExp(`^[0-9a-f]{${digits}}$`));
export const deviceId = text(/^[A-Za-z0-9_-]{8,64}$/);
export const personId = text(/^[A-Za-z0-9_-]{1,64}$/);
export const service = text(/^[a-z][a-z0-9-]{0,31}$/);
export const level = oneOf("diagnostics", "service", "os");
// Printable: no control, separator, invisible or bidirectional characters, and no tags.
const PRINTABLE =
  /^[^\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\u{e0000}-\u{e007f}]*$/u;
export const printable = (most) => text(PRINTABLE, most);

/** The object in these bytes, each field read by `schema`; `defaults` are those it may leave out. */
export function decode(data, schema, defaults = {}) {
  try {
    const value = JSON.parse(fromUtf8(data));
    if (typeof value !== "object" || value === null || Array.isArray(value)) throw new SchemaError();
    const known = { ...defaults, ...value };
    if (Object.keys(known).length !== Object.keys(schema).length) throw new SchemaError();
    const read = {};
    for (const [name, reader] of Object.entries(schema)) {
      if (!Object.hasOwn(known, name)) throw new SchemaError();
      read[name] = reader(known[name]);
    }
    return read;
  } catch (error) {
    throw new SchemaError(`not in the form that this program knows (${error.message})`);
  }
}

/** Whether these bytes are JSON in canonical form (RFC 8785). */
export function isCanonical(data) {
  return equal(utf8(canonical(JSON.parse(fromUtf8(data)))), data);
}

function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  const fields = Object.keys(value).sort(); // by UTF-16 code units, as RFC 8785 wants
  return `{${fields.map((name) => `${JSON.stringify(name)}:${canonical(value[name])}`).join(",")}}`;
}
