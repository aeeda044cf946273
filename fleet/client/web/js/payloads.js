// What is inside the frames that the multiplexer makes and reads, before they are sealed
// (docs/protocol.md, 6). What is too short or too long is a fault of who sent it.

import { FaultError, ResetCode } from "./mux_events.js";

function made(size, fill) {
  const bytes = new Uint8Array(size);
  fill(new DataView(bytes.buffer));
  return bytes;
}

function read(payload, size) {
  if (payload.length !== size) throw new FaultError(ResetCode.PROTOCOL);
  return new DataView(payload.buffer, payload.byteOffset, size);
}

/** OPEN without the service's name, which follows it. */
export function open(bulk, window) {
  return made(5, (view) => {
    view.setUint8(0, bulk ? 1 : 0);
    view.setUint32(1, window);
  });
}

export function readAccept(payload) {
  return read(payload, 4).getUint32(0);
}

export function credit(used, window) {
  return made(12, (view) => {
    view.setBigUint64(0, BigInt(used));
    view.setUint32(8, window);
  });
}

/** `acked` beyond 2^53 is no longer exact; it is then beyond everything that was ever sent. */
export function readCredit(payload) {
  const view = read(payload, 12);
  return { acked: Number(view.getBigUint64(0)), window: view.getUint32(8) };
}

export function reset(code) {
  return made(2, (view) => view.setUint16(0, code));
}

export function readReset(payload) {
  return read(payload, 2).getUint16(0);
}

export function resume(kind, expected, to) {
  return made(17, (view) => {
    view.setUint8(0, kind);
    view.setBigUint64(1, BigInt(expected));
    view.setBigUint64(9, to);
  });
}

export function readResume(payload) {
  const view = read(payload, 17);
  return {
    kind: view.getUint8(0),
    expected: Number(view.getBigUint64(1)),
    to: view.getBigUint64(9),
  };
}
