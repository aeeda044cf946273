// The stream multiplexer, client end: many byte streams in one sealed session. Pure: opened frames
// in, events out; frames to seal come from nextFrame(). The theory of operation, with the rules of
// credit, order and resume, is at the top of agent/wire/mux.py; both are held to the same vectors.
//
// Sealing is asynchronous in a browser, and so is kept outside. The owner does
//
//     on each frame that arrives, in order:   opened = await seal.open(frame)
//                                             for (event of mux.receive(opened.header, …payload)) …
//     whenever the pipe has room:             while ((out = mux.nextFrame())) pipe(await out.seal(seal))
//     to send:                                mux.send(stream, data.subarray(0, mux.writable(stream)))
//     when data has been used:                mux.consumed(stream, data.length)
//     when the pipe was made again:           mux.resume()

import { concat, utf8 } from "./bytes.js";
import { FrameType } from "./frames.js";
import { FaultError, Kind, LocalError, MuxError, ResetCode, resetCode } from "./mux_events.js";
import { MAX_WINDOW, Outward } from "./mux_out.js";
import { FIRST_RESUME, LEGAL, MAX_KEPT, MAX_PAST, ResumeKind, State, Stream } from "./mux_stream.js";
import * as payloads from "./payloads.js";

const NOTE_FRAMES = 64; // CREDITs taken before the peer is told so; far below MAX_CONTROL
const MAX_STREAM = 2 ** 32 - 1;
const SMALL = 16 * 1024; // bytes; smaller writes are gathered while they wait
const SERVICE = /^[a-z][a-z0-9-]{0,31}$/;

/** The client's end of a sealed session's streams. `window` is the credit given on each, bytes. */
export class Mux extends Outward {
  // --- what the owner may ask and do --------------------------------------------------------------

  /** The streams that are not over. */
  get streams() {
    return [...this._streams.keys()];
  }

  /** Streams that stand still until the peer answers. */
  get unanswered() {
    return [...this._streams.values()].filter((it) => it.halted).map((it) => it.id);
  }

  /** Ask the device for a service. Throws LocalError for a number used before, or one too many. */
  open(stream, service, bulk = false) {
    if (!SERVICE.test(service)) throw new LocalError(`${service} is no name of a service`);
    const epoch = Math.floor(stream / 65536);
    const fits = Number.isInteger(stream) && stream >= 1 && stream <= MAX_STREAM;
    if (!fits || stream <= (this._highest.get(epoch) ?? 0)) {
      throw new LocalError(`stream number ${stream} is out of range or was used before`);
    }
    if (this._streams.size + this._resets.length >= this._maxStreams) {
      throw new LocalError(`${this._maxStreams} streams are open, which is the limit`);
    }
    this._highest.set(epoch, stream);
    const it = new Stream(stream, bulk);
    it.granted = this._window;
    it.control = concat(payloads.open(bulk, this._window), utf8(service));
    this._streams.set(stream, it);
    this._wantControl(it);
  }

  /** Bytes that send() takes now; 0 when the stream is unknown, ended or not accepted. */
  writable(stream) {
    const it = this._streams.get(stream);
    if (!it || it.ending || !it.sending) return 0;
    return it.limit - it.sent - it.queued;
  }

  /** Queue at most writable() bytes. Throws LocalError for more. */
  send(stream, data) {
    if (data.length > this.writable(stream)) {
      throw new LocalError(`stream ${stream} takes ${this.writable(stream)} bytes`);
    }
    if (!data.length) return;
    const it = this._streams.get(stream);
    const last = it.queue.at(-1);
    if (last && last.length + data.length <= SMALL) it.queue[it.queue.length - 1] = concat(last, data);
    else it.queue.push(data.slice());
    it.queued += data.length;
    this._wantData(it);
  }

  /** Send EOF after what is queued. No effect on a stream that is gone or ended. */
  end(stream) {
    const it = this._streams.get(stream);
    if (!it || it.ending) return;
    it.ending = true;
    if (it.sending) this._wantData(it);
  }

  /** Cut both directions and drop what is queued. No effect on a stream that is gone. */
  reset(stream, code = ResetCode.CANCELLED) {
    const it = this._streams.get(stream);
    if (!it) return;
    this._forget(it);
    if (it.number) this._refuse(it, code); // else the peer never heard of it
  }

  /** Say that `size` bytes were used, so that the peer may send as many more. */
  consumed(stream, size) {
    const it = this._streams.get(stream);
    if (!it) return;
    if (!(size >= 0 && size <= it.received - it.consumed)) {
      throw new LocalError(`stream ${stream} has not received that much`);
    }
    it.consumed += size;
    this._considerCredit(it);
  }

  /** The pipe was made again: find out what both ends lack, on every stream. */
  resume() {
    this._repeats = this._past.frames();
    for (const it of this._streams.values()) if (it.number) this._ask(it);
  }

  /** The same of one stream. No effect when it is gone, or nothing of it has left. */
  ask(stream) {
    const it = this._streams.get(stream);
    if (it?.number) this._ask(it);
  }

  /** Whether a frame with this header is worth opening: the stream is known here. */
  wants(header) {
    return this._streams.has(header.stream) || this._isPast(header);
  }

  // --- frames in ----------------------------------------------------------------------------------

  /** Take an opened frame. Throws MuxError, and changes nothing, when it must not be. */
  receive(header, payload) {
    if (header.number >= FIRST_RESUME !== (header.type === FrameType.RESUME)) {
      throw new MuxError(ResetCode.PROTOCOL, "a number that this type does not have");
    }
    const it = this._streams.get(header.stream);
    if (!it) return this._isPast(header) ? this._receivePast(header) : [];
    const seen = header.type === FrameType.RESUME ? it.heard + 1n : BigInt(it.expected);
    if (header.number < seen) {
      throw new MuxError(ResetCode.REPLAY, `frame ${header.number} was received before`);
    }
    try {
      return this._receiveOn(it, header, payload);
    } catch (fault) {
      if (!(fault instanceof FaultError)) throw fault;
      this.reset(it.id, fault.code);
      return [{ kind: Kind.RESET, stream: it.id, code: fault.code, byPeer: false }];
    }
  }

  _isPast(header) {
    return header.type === FrameType.RESUME && this._past.get(header.stream) !== undefined;
  }

  _receiveOn(it, header, payload) {
    const type = header.type;
    if (type === FrameType.RESET) return this._receiveReset(it, payload);
    if (type === FrameType.RESUME) return this._receiveResume(it, header, payload);
    if (header.number !== BigInt(it.expected)) {
      if (!it.halted) this._ask(it);
      return [];
    }
    if (!LEGAL[it.state].has(type)) throw new FaultError(ResetCode.PROTOCOL);
    it.expected += 1;
    const isPlaced = type === FrameType.DATA || type === FrameType.EOF;
    if (header.offset !== (isPlaced ? BigInt(it.received) : 0n)) {
      throw new FaultError(ResetCode.PROTOCOL);
    }
    if (type === FrameType.DATA) return this._receiveData(it, payload);
    if (type === FrameType.CREDIT) return this._receiveCredit(it, payload);
    if (type === FrameType.EOF) return this._receiveEof(it, payload);
    return this._receiveAccept(it, payload);
  }

  _receiveData(it, payload) {
    if (!payload.length) throw new FaultError(ResetCode.PROTOCOL);
    if (it.received + payload.length > it.granted || it.unreported.length >= MAX_KEPT) {
      throw new FaultError(ResetCode.CREDIT);
    }
    it.received += payload.length;
    it.unreported.push(it.received);
    return [{ kind: Kind.DATA, stream: it.id, data: payload }];
  }

  _receiveCredit(it, payload) {
    const { acked, window } = payloads.readCredit(payload);
    if (!(acked >= it.acked && acked <= it.sent) || window > MAX_WINDOW) {
      throw new FaultError(ResetCode.PROTOCOL);
    }
    if (!window) return this._receiveFinal(it, acked);
    if (it.eofAcked || acked + window < it.limit) {
      throw new FaultError(ResetCode.PROTOCOL); // credit once given is not taken back
    }
    it.acked = acked;
    it.limit = acked + window;
    it.used(acked);
    it.unnoted += 1;
    if (it.unnoted >= NOTE_FRAMES) {
      it.noteDue = true;
      this._wantControl(it);
    }
    if (it.queued || it.ending) this._wantData(it);
    return it.ending ? [] : [{ kind: Kind.CREDITED, stream: it.id }];
  }

  _receiveFinal(it, acked) {
    if (!it.eofSent || acked !== it.sent || it.eofAcked) throw new FaultError(ResetCode.PROTOCOL);
    it.acked = acked;
    it.used(acked + 1);
    it.eofAcked = true;
    this._forgetIfOver(it);
    return [{ kind: Kind.ACKNOWLEDGED, stream: it.id }];
  }

  _receiveEof(it, payload) {
    if (payload.length) throw new FaultError(ResetCode.PROTOCOL);
    it.state = State.DRAINED;
    this._considerCredit(it);
    return [{ kind: Kind.ENDED, stream: it.id }];
  }

  _receiveAccept(it, payload) {
    const window = payloads.readAccept(payload);
    if (!(window >= 1 && window <= MAX_WINDOW)) throw new FaultError(ResetCode.PROTOCOL);
    it.state = State.RUNNING;
    it.limit = window;
    it.hasArrived(1);
    if (it.ending) this._wantData(it);
    return [{ kind: Kind.ACCEPTED, stream: it.id }];
  }

  _receiveResume(it, header, payload) {
    const { kind, expected, to } = payloads.readResume(payload);
    if (header.offset || expected > it.number || kind > ResumeKind.NOTE) {
      throw new FaultError(ResetCode.PROTOCOL);
    }
    it.heard = header.number;
    if (kind === ResumeKind.NOTE || (kind === ResumeKind.ANSWER && to !== it.asked)) {
      it.hasArrived(expected); // an answer to an older question tells no more than that
      return [];
    }
    if (kind === ResumeKind.ASK) it.answerTo = header.number;
    it.asked = 0n; // an ASK says what an answer would, and ours may have been lost
    it.rewind(expected);
    this._revive(it);
    return [];
  }

  /** The peer lacks the end of a stream that is over here. */
  _receivePast(header) {
    const past = this._past.get(header.stream);
    if (header.number <= past.heard) {
      throw new MuxError(ResetCode.REPLAY, `frame ${header.number} was received before`);
    }
    past.heard = header.number;
    if (this._repeats.length <= MAX_PAST) this._repeats.push(...past.frames);
    return [];
  }

  _receiveReset(it, payload) {
    const code = resetCode(payloads.readReset(payload));
    this._forget(it);
    return [{ kind: Kind.RESET, stream: it.id, code, byPeer: true }];
  }
}
