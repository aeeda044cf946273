// What a multiplexer tells its owner: events ({kind, stream, …}), reset codes, two kinds of error.

export const ResetCode = Object.freeze({
  CANCELLED: 0, // the program that used it went away
  REFUSED: 1, // the session does not allow this service
  UNREACHABLE: 2, // nothing listens for this service
  BUSY: 3, // too many streams
  GAP: 4, // frames were lost on the way
  REPLAY: 5,
  CREDIT: 6, // more was sent than was granted
  PROTOCOL: 7, // a frame that may not come now, or makes no sense
  SEAL: 8, // not sealed by the other end of this session
  SESSION_OVER: 9,
  INTERNAL: 10,
});
const CODES = new Set(Object.values(ResetCode));

/** The code of a RESET; a code of a later version is taken for INTERNAL. */
export function resetCode(number) {
  return CODES.has(number) ? number : ResetCode.INTERNAL;
}

/** A frame that was not taken; nothing changed. The peer, or someone on the way, is at fault. */
export class MuxError extends Error {
  constructor(code, detail) {
    super(detail);
    this.code = code;
  }
}

/** The caller on this side asked for what it may not. */
export class LocalError extends Error {}

/** A sealed frame that its sender may not send: ends the stream. */
export class FaultError extends Error {
  constructor(code) {
    super(`fault ${code}`);
    this.code = code;
  }
}

export const Kind = Object.freeze({
  ACCEPTED: "accepted", // the device took the stream; it is writable from now on
  DATA: "data", // bytes from the peer: call consumed() when they are used
  ENDED: "ended", // the peer sends no more; this side still may
  CREDITED: "credited", // more may be sent
  ACKNOWLEDGED: "acknowledged", // the peer has used everything, up to and with this side's end
  RESET: "reset", // gone in both directions; `byPeer` false when this side found the fault
});
