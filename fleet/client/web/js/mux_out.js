// What the multiplexer sends, in which order, and the books of what it has sent.

import { FrameType, MAX_DATA } from "./frames.js";
import { LocalError } from "./mux_events.js";
import { Graveyard, MAX_KEPT, Outgoing, ResumeKind, State } from "./mux_stream.js";
import * as payloads from "./payloads.js";

export const DEFAULT_WINDOW = 1024 * 1024; // bytes
export const MAX_WINDOW = 16 * 1024 * 1024; // bytes; what a peer may grant
const CREDIT_FRAMES = 64; // acknowledge at least this often; far below MAX_KEPT

/** The half that sends. `Mux` adds what its owner may do, and what comes in. */
export class Outward {
  _session;
  _window;
  _maxStreams;
  _streams = new Map();
  _highest = new Map(); // of each epoch, the highest stream made
  _resets = [];
  _repeats = []; // last frames of streams that are over
  _past = new Graveyard();
  _control = [];
  _interactive = [];
  _bulk = [];

  constructor({ session, window = DEFAULT_WINDOW, maxStreams = 32 }) {
    if (!(window >= 1 && window <= MAX_WINDOW)) {
      throw new LocalError(`a window has 1 to ${MAX_WINDOW} bytes`);
    }
    this._session = session;
    this._window = window;
    this._maxStreams = maxStreams;
  }

  // --- frames out ---------------------------------------------------------------------------------

  /** The next frame to seal and send, or null when there is nothing to send now. */
  nextFrame() {
    for (const line of [this._resets, this._repeats]) if (line.length) return line.shift();
    while (this._control.length) {
      const it = this._control.shift();
      it.waiting = false;
      const frame = this._controlFrame(it);
      if (frame) return frame;
    }
    return this._turn(this._interactive) ?? this._turn(this._bulk);
  }

  _controlFrame(it) {
    if (it.resuming) {
      const frame = this._resumeFrame(it);
      this._wantControl(it); // for what else is due
      return frame;
    }
    if (it.halted || it.again.length) return null; // _revive and _turn put it back in line
    if (it.control) {
      const payload = it.control;
      it.control = null;
      if (it.creditDue) this._wantControl(it);
      return this._keptControl(it, FrameType.OPEN, payload);
    }
    return it.creditDue ? this._creditFrame(it) : null;
  }

  _creditFrame(it) {
    it.creditDue = false;
    it.reported = it.consumed;
    while (it.unreported.length && it.unreported[0] <= it.consumed) it.unreported.shift();
    it.finalSent = it.drained;
    const window = it.finalSent ? 0 : this._window;
    it.granted = it.consumed + window;
    const frame = this._keptControl(it, FrameType.CREDIT, payloads.credit(it.consumed, window));
    this._forgetIfOver(it);
    return frame;
  }

  /** What is due first: an answer is waited for; a question may bring frames; a note can wait. */
  _resumeFrame(it) {
    let kind = ResumeKind.NOTE;
    let to = 0n;
    if (it.answerTo) {
      kind = ResumeKind.ANSWER;
      to = it.answerTo;
      it.answerTo = 0n;
    } else if (it.offerDue) {
      it.offerDue = false;
      return it.keptControl[0].frame;
    } else if (it.askDue) {
      kind = ResumeKind.ASK;
      it.askDue = false;
      it.asked = it.resumes;
    }
    it.noteDue = false;
    it.unnoted = 0;
    const payload = payloads.resume(kind, it.expected, to);
    return this._outgoing(FrameType.RESUME, it.id, it.resumes++, 0, payload);
  }

  _turn(line) {
    while (line.length) {
      const it = line.shift();
      it.ready = false;
      if (it.halted) continue; // the answer puts it back in line
      if (it.again.length) {
        const frame = it.again.shift();
        this._revive(it);
        return frame;
      }
      if (it.queued) {
        if (it.kept.length >= MAX_KEPT) continue; // CREDIT puts it back in line
        return this._dataFrame(it);
      }
      if (it.ending && !it.eofSent) {
        it.eofSent = true;
        const frame = this._numbered(it, FrameType.EOF, new Uint8Array(), it.sent);
        it.kept.push({ number: it.number - 1, end: it.sent + 1, frame });
        return frame;
      }
    }
    return null;
  }

  _dataFrame(it) {
    const piece = it.take(MAX_DATA);
    const frame = this._numbered(it, FrameType.DATA, piece, it.sent);
    it.sent += piece.length;
    it.kept.push({ number: it.number - 1, end: it.sent, frame });
    if (it.queued || it.ending) this._wantData(it);
    return frame;
  }

  _numbered(it, type, payload, offset = 0) {
    return this._outgoing(type, it.id, BigInt(it.number++), offset, payload);
  }

  _keptControl(it, type, payload) {
    const frame = this._numbered(it, type, payload);
    it.keepControl(it.number - 1, frame);
    return frame;
  }

  _outgoing(type, stream, number, offset, payload) {
    const header = { type, session: this._session, stream, number, offset: BigInt(offset) };
    return new Outgoing(header, payload);
  }

  // --- bookkeeping --------------------------------------------------------------------------------

  /** Ask for a CREDIT when it is worth a frame: enough was used, or everything to the end. */
  _considerCredit(it) {
    const used = it.consumed - it.reported;
    const many = used && it.unreported.length >= CREDIT_FRAMES;
    if ((it.drained && !it.finalSent) || 4 * used >= this._window || many) {
      it.creditDue = true;
      this._wantControl(it);
    }
  }

  _wantControl(it) {
    if (it.waiting) return;
    it.waiting = true;
    this._control.push(it);
  }

  _wantData(it) {
    if (it.ready) return;
    it.ready = true;
    (it.bulk ? this._bulk : this._interactive).push(it);
  }

  _refuse(it, code) {
    const frame = this._numbered(it, FrameType.RESET, payloads.reset(code));
    this._resets.push(frame);
    this._past.bury(it.id, [frame], it.heard);
  }

  _ask(it) {
    it.askDue = true;
    it.offerDue = it.state === State.OFFERED && it.keptControl.length > 0;
    it.asked = 0n;
    this._wantControl(it);
  }

  /** Frames of this stream may leave again, or more of them. */
  _revive(it) {
    if (it.again.length || it.queued || it.ending) this._wantData(it);
    if (it.resuming || (!it.again.length && (it.control || it.creditDue))) this._wantControl(it);
  }

  _forgetIfOver(it) {
    if (!it.over) return;
    this._forget(it);
    // All of ours was used, so that only a CREDIT may be missing there.
    this._past.bury(it.id, it.keptControl.map((each) => each.frame), it.heard);
  }

  _forget(it) {
    this._streams.delete(it.id);
    for (const line of [this._control, this._interactive, this._bulk]) {
      const at = line.indexOf(it);
      if (at >= 0) line.splice(at, 1);
    }
    it.queue = [];
    it.kept = [];
    it.again = [];
  }
}
