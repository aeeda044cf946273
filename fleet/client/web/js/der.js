// DER, as far as certificates of this product need it. Strict: one spelling of everything, and not
// a byte too many.

/** Bytes that are no DER, or not what was looked for. */
export class DerError extends Error {}

export const Tag = Object.freeze({
  BOOLEAN: 0x01, INTEGER: 0x02, BITS: 0x03, OCTETS: 0x04, OID: 0x06, UTF8: 0x0c, PRINTABLE: 0x13,
  UTC_TIME: 0x17, TIME: 0x18, SEQUENCE: 0x30, SET: 0x31,
});

/** One element: its tag, its contents, and its bytes whole. */
function element(bytes, at) {
  if (at + 2 > bytes.length) throw new DerError("cut short");
  const tag = bytes[at];
  if ((tag & 0x1f) === 0x1f) throw new DerError("a tag of many bytes");
  let size = bytes[at + 1];
  let start = at + 2;
  if (size >= 0x80) {
    const count = size - 0x80;
    if (count < 1 || count > 3 || start + count > bytes.length) throw new DerError("a bad length");
    size = 0;
    for (let i = 0; i < count; i += 1) size = size * 256 + bytes[start + i];
    if (size < 0x80 || size < 256 ** (count - 1)) throw new DerError("a length in the long way");
    start += count;
  }
  if (start + size > bytes.length) throw new DerError("cut short");
  const end = start + size;
  return { tag, contents: bytes.subarray(start, end), whole: bytes.subarray(at, end), end };
}

/** Reads elements one after another, each of the kind that is asked for. */
export class Reader {
  #bytes;
  #at = 0;

  constructor(bytes) {
    this.#bytes = bytes;
  }

  /** The one element that these bytes are, read from inside. */
  static inside(bytes, tag) {
    const outer = new Reader(bytes);
    const inner = new Reader(outer.take(tag).contents);
    outer.end();
    return inner;
  }

  get more() {
    return this.#at < this.#bytes.length;
  }

  peek() {
    return this.more ? this.#bytes[this.#at] : null;
  }

  any() {
    const found = element(this.#bytes, this.#at);
    this.#at = found.end;
    return found;
  }

  take(tag) {
    const found = this.any();
    if (found.tag !== tag) throw new DerError(`tag ${found.tag} where ${tag} belongs`);
    return found;
  }

  enter(tag) {
    return new Reader(this.take(tag).contents);
  }

  /** A whole number of at most 32 bits that is not negative. */
  number() {
    const { contents } = this.take(Tag.INTEGER);
    if (!contents.length || contents.length > 4 || contents[0] & 0x80) {
      throw new DerError("a number out of bounds");
    }
    if (contents.length > 1 && contents[0] === 0 && !(contents[1] & 0x80)) {
      throw new DerError("a number in the long way");
    }
    return contents.reduce((sum, byte) => sum * 256 + byte, 0);
  }

  boolean() {
    const { contents } = this.take(Tag.BOOLEAN);
    if (contents.length !== 1 || (contents[0] !== 0 && contents[0] !== 0xff)) {
      throw new DerError("a truth value in the long way");
    }
    return contents[0] === 0xff;
  }

  /** An object identifier, as dotted numbers. */
  oid() {
    return dotted(this.take(Tag.OID).contents);
  }

  /** A bit string of whole bytes. */
  bits() {
    const { contents } = this.take(Tag.BITS);
    if (!contents.length || contents[0] !== 0) throw new DerError("bits that make no bytes");
    return contents.subarray(1);
  }

  /** UTCTime or GeneralizedTime, to the second and in UTC, as RFC 5280 has them. */
  time() {
    const found = this.any();
    const text = String.fromCharCode(...found.contents);
    let digits = /^(\d{12})Z$/.exec(text)?.[1];
    if (found.tag === Tag.UTC_TIME && digits) digits = (digits < "50" ? "20" : "19") + digits;
    else digits = found.tag === Tag.TIME ? /^(\d{14})Z$/.exec(text)?.[1] : undefined;
    if (!digits) throw new DerError("a time in another form");
    const [, year, ...rest] = /^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)$/.exec(digits);
    const [month, day, hour, minute, second] = rest.map(Number);
    const at = new Date(Date.UTC(Number(year), month - 1, day, hour, minute, second));
    const said = `${year}-${rest[0]}-${rest[1]}T${rest[2]}:${rest[3]}:${rest[4]}.000Z`;
    if (at.toISOString() !== said) throw new DerError("a time that does not exist");
    return at;
  }

  end() {
    if (this.more) throw new DerError("more than there should be");
  }
}

function dotted(contents) {
  if (!contents.length || contents.at(-1) & 0x80) throw new DerError("an identifier cut short");
  const parts = [];
  let value = 0;
  for (const byte of contents) {
    if (value === 0 && byte === 0x80) throw new DerError("an identifier in the long way");
    value = value * 128 + (byte & 0x7f);
    if (value > Number.MAX_SAFE_INTEGER) throw new DerError("an identifier out of bounds");
    if (byte & 0x80) continue;
    parts.push(value);
    value = 0;
  }
  const first = Math.min(2, Math.floor(parts[0] / 40));
  return [first, parts[0] - 40 * first, ...parts.slice(1)].join(".");
}

/** An ECDSA signature as WebCrypto wants it: r and s, `size` bytes each. */
export function rawSignature(der, size) {
  const both = Reader.inside(der, Tag.SEQUENCE);
  const made = new Uint8Array(2 * size);
  for (const end of [size, 2 * size]) {
    let { contents } = both.take(Tag.INTEGER);
    if (!contents.length || contents[0] & 0x80) throw new DerError("a number that is negative");
    if (contents.length > 1 && contents[0] === 0) {
      if (!(contents[1] & 0x80)) throw new DerError("a number in the long way");
      contents = contents.subarray(1);
    }
    if (contents.length > size) throw new DerError("a number out of bounds");
    made.set(contents, end - contents.length);
  }
  both.end();
  return made;
}
