// Stream frames: a 40-byte header in the clear, a sealed payload behind it (docs/protocol.md, 6).
// Frame numbers and offsets are 64 bits wide, so they are BigInt here.

export const VERSION = 1;
export const HEADER = 40; // bytes
export const TAG = 16; // bytes that AES-GCM adds
export const MAX_DATA = 32 * 1024;
export const MAX_FRAME = HEADER + MAX_DATA + TAG;

export const FrameType = Object.freeze({
  OPEN: 1,
  ACCEPT: 2,
  DATA: 3,
  CREDIT: 4,
  EOF: 5,
  RESET: 6,
  RESUME: 7,
});
const KNOWN = new Set(Object.values(FrameType));

/** Bytes that are no frame of ours. */
export class FrameError extends Error {}

/** @param {{type: number, session: Uint8Array, stream: number, number: bigint, offset: bigint}} header */
export function pack(header) {
  const bytes = new Uint8Array(HEADER);
  const view = new DataView(bytes.buffer);
  bytes[0] = VERSION;
  bytes[1] = header.type;
  bytes.set(header.session, 4);
  view.setUint32(20, header.stream);
  view.setBigUint64(24, header.number);
  view.setBigUint64(32, header.offset);
  return bytes;
}

/** Read a frame's header; looks at no sealed byte. Throws FrameError. */
export function parse(frame) {
  if (frame.length < HEADER + TAG || frame.length > MAX_FRAME) {
    throw new FrameError(`${frame.length} bytes; a frame has ${HEADER + TAG} to ${MAX_FRAME}`);
  }
  if (frame[0] !== VERSION) {
    throw new FrameError(`frame version ${frame[0]}; this side speaks ${VERSION}`);
  }
  if (frame[2] || frame[3]) throw new FrameError("reserved bits are set");
  if (!KNOWN.has(frame[1])) throw new FrameError(`frame type ${frame[1]} is unknown`);
  const view = new DataView(frame.buffer, frame.byteOffset, HEADER);
  return {
    type: frame[1],
    session: frame.slice(4, 20),
    stream: view.getUint32(20),
    number: view.getBigUint64(24),
    offset: view.getBigUint64(32),
  };
}
