// One end's books of one stream: what was sent, what arrived, and what may have to be sent again.
// The theory of operation is in agent/wire/mux.py, and holds for this too. Nothing here seals.

import { FrameType } from "./frames.js";
import { FaultError, ResetCode } from "./mux_events.js";

export const MAX_KEPT = 1024; // DATA frames of one stream kept until acknowledged
export const MAX_CONTROL = 256; // other frames kept until the peer is known to have them
export const MAX_PAST = 64; // streams that are over and whose last frames are kept
export const FIRST_RESUME = 1n << 63n; // RESUME frames count from here, all others from 0

export const State = Object.freeze({ OFFERED: "offered", RUNNING: "running", DRAINED: "drained" });

const { ACCEPT, DATA, CREDIT, EOF, RESET, RESUME } = FrameType;
/** What the device may send in each state. */
export const LEGAL = Object.freeze({
  [State.OFFERED]: new Set([ACCEPT, RESET, RESUME]),
  [State.RUNNING]: new Set([DATA, CREDIT, EOF, RESET, RESUME]),
  [State.DRAINED]: new Set([CREDIT, RESET, RESUME]),
});

/** What a RESUME wants. Each says which frame its sender takes next. */
export const ResumeKind = Object.freeze({
  ASK: 0, // send me again what I lack, and tell me what you lack
  ANSWER: 1, // that is what I lack
  NOTE: 2, // you need not keep what came before
});

/** A frame on its way: sealed once, however often it is sent. */
export class Outgoing {
  #header;
  #payload;
  #sealed = null;

  constructor(header, payload) {
    this.#header = header;
    this.#payload = payload;
  }

  get stream() {
    return this.#header.stream;
  }

  get number() {
    return this.#header.number;
  }

  /** The bytes for the pipe: the same promise each time, so that no nonce seals two texts. */
  seal(seal) {
    if (this.#sealed === null) {
      this.#sealed = seal.close(this.#header, this.#payload);
      this.#payload = null;
    }
    return this.#sealed;
  }
}

/** Both directions of one stream. Offsets count bytes from 0, numbers count frames. */
export class Stream {
  constructor(id, bulk) {
    this.id = id;
    this.state = State.OFFERED;
    this.bulk = bulk;
    // sending
    this.number = 0; // of the next frame
    this.queue = []; // plaintext not yet in a frame
    this.queued = 0;
    this.sent = 0;
    this.limit = 0; // offset up to which the peer lets us send
    this.acked = 0;
    this.kept = []; // {number, end, frame} of DATA and EOF
    this.keptControl = []; // {number, frame} of OPEN and CREDIT
    this.ending = false;
    this.eofSent = false;
    this.eofAcked = false;
    this.control = null; // payload of an OPEN that is due
    this.waiting = false; // in the control queue
    this.ready = false; // in a data queue
    // receiving
    this.expected = 0; // number of the next frame
    this.received = 0;
    this.consumed = 0;
    this.reported = 0; // consumed, as last told to the peer
    this.granted = 0; // offset up to which the peer may send
    this.unreported = []; // ends of DATA frames that no CREDIT covers yet
    this.creditDue = false;
    this.finalSent = false;
    // resuming
    this.arrived = 0; // the peer is known to have every frame below this number
    this.floor = 0; // frames below this number cannot be sent again
    this.again = []; // to be sent again, before anything new
    this.resumes = FIRST_RESUME; // number of our next RESUME
    this.heard = FIRST_RESUME - 1n; // number of the peer's last RESUME
    this.askDue = false;
    this.asked = 0n; // number of our ASK that waits for its answer; 0: none
    this.offerDue = false; // the OPEN goes out again, before the ASK
    this.answerTo = 0n; // number of the peer's ASK that waits for ours; 0: none
    this.noteDue = false;
    this.unnoted = 0; // CREDITs that came since our last NOTE
  }

  get over() {
    return this.eofAcked && this.finalSent;
  }

  /** No numbered frame may leave, or it would meet a gap: what the peer lacks comes first. */
  get halted() {
    return this.askDue || this.asked !== 0n;
  }

  /** A RESUME is due. */
  get resuming() {
    return this.askDue || this.answerTo !== 0n || this.noteDue;
  }

  get sending() {
    return this.state !== State.OFFERED;
  }

  get drained() {
    return this.state === State.DRAINED && this.consumed === this.received;
  }

  keepControl(number, frame) {
    this.keptControl.push({ number, frame });
    if (this.keptControl.length > MAX_CONTROL) this.floor = this.keptControl.shift().number + 1;
  }

  /** The peer has used everything up to this offset; an EOF stays until it is answered. */
  used(acked) {
    let arrived = 0;
    while (this.kept.length && this.kept[0].end <= acked) arrived = this.kept.shift().number + 1;
    if (arrived) this.hasArrived(arrived);
  }

  /** The peer has every frame below this number. */
  hasArrived(number) {
    if (number <= this.arrived) return;
    this.arrived = number;
    this.offerDue = false;
    while (this.keptControl.length && this.keptControl[0].number < number) this.keptControl.shift();
  }

  /** Send again from the frame that the peer takes next. Throws FaultError. */
  rewind(expected) {
    this.hasArrived(expected);
    const start = this.arrived; // it may have told more since than it says here
    if (start < this.floor) throw new FaultError(ResetCode.GAP);
    this.again = [...this.kept, ...this.keptControl]
      .filter((each) => each.number >= start)
      .sort((one, other) => one.number - other.number)
      .map((each) => each.frame);
  }

  /** Up to `most` bytes of what is queued, in one piece. */
  take(most) {
    const piece = new Uint8Array(Math.min(most, this.queued));
    let at = 0;
    while (at < piece.length) {
      const head = this.queue[0];
      const size = Math.min(head.length, piece.length - at);
      piece.set(head.subarray(0, size), at);
      at += size;
      if (size === head.length) this.queue.shift();
      else this.queue[0] = head.subarray(size);
    }
    this.queued -= piece.length;
    return piece;
  }
}

/** The last frames of streams that are over, as the peer may have missed them. Bounded. */
export class Graveyard {
  #past = new Map(); // stream: {frames, heard}

  bury(stream, frames, heard) {
    if (!frames.length) return;
    this.#past.set(stream, { frames, heard });
    if (this.#past.size > MAX_PAST) this.#past.delete(this.#past.keys().next().value);
  }

  get(stream) {
    return this.#past.get(stream);
  }

  frames() {
    return [...this.#past.values()].flatMap((past) => past.frames);
  }
}
