// What runs inside a stream of a terminal: pieces of data, the window's size, the exit status. The
// same as agent/wire/terminal.py, from the specialist's end, and held to the same vectors.

import { concat } from "./bytes.js";

export const SERVICE = "terminal"; // a service of this name speaks pieces, and no other does
export const MAX_PIECE = 16 * 1024; // bytes of data in one piece
export const MAX_SIDE = 1000; // rows, columns
const DATA = 1;
const SIZE = 2;
const EXIT = 3;
const HEAD = 3; // bytes: kind, length
const LENGTHS = { [DATA]: [1, MAX_PIECE], [EXIT]: [1, 1] }; // of what an injector may send

/** The other end sent what is no piece; the stream must be cut. */
export class PieceError extends Error {}

function piece(kind, payload) {
  return concat(new Uint8Array([kind, payload.length >> 8, payload.length & 255]), payload);
}

/** Pieces with all of these bytes; nothing for nothing. */
export function data(bytes) {
  const parts = [];
  for (let at = 0; at < bytes.length; at += MAX_PIECE) {
    parts.push(piece(DATA, bytes.subarray(at, at + MAX_PIECE)));
  }
  return concat(...parts);
}

/** What is out of bounds is brought within: a window may be of any size. */
export function size(rows, columns) {
  const sides = [rows, columns].map((side) => Math.max(1, Math.min(side, MAX_SIDE)));
  return piece(SIZE, new Uint8Array(sides.flatMap((side) => [side >> 8, side & 255])));
}

/** Pieces of a stream as they come from the injector. Holds at most one that is not whole. */
export class Reader {
  #rest = new Uint8Array();
  #over = false;

  /** The pieces that are whole now: {data} or {status}. Throws PieceError; feed no more after it. */
  feed(received) {
    const found = [];
    const bytes = concat(this.#rest, received);
    let at = 0;
    while (bytes.length - at >= HEAD) {
      const [kind, length] = [bytes[at], bytes[at + 1] * 256 + bytes[at + 2]];
      this.#check(kind, length);
      const end = at + HEAD + length;
      if (bytes.length < end) break;
      const payload = bytes.slice(at + HEAD, end);
      found.push(kind === DATA ? { data: payload } : { status: payload[0] });
      this.#over = kind === EXIT;
      at = end;
    }
    this.#rest = bytes.slice(at);
    if (this.#over && this.#rest.length) throw new PieceError("something follows the exit status");
    return found;
  }

  #check(kind, length) {
    if (this.#over) throw new PieceError("something follows the exit status");
    if (!(kind in LENGTHS)) throw new PieceError(`a piece of kind ${kind} may not come from here`);
    const [least, most] = LENGTHS[kind];
    if (length < least || length > most) {
      throw new PieceError(`a piece of kind ${kind} has ${length} bytes`);
    }
  }
}
