"""Stream frames: a 40-byte header in the clear, a sealed payload behind it.

    0       1      2         4                20        24                 32               40
    version type   reserved  session          stream    number             offset           payload
    u8      u8     u16 (0)   16 bytes         u32       u64                u64              sealed

`number` counts the frames of one direction of one stream from 0 (RESUME from 2^63) and never
repeats: with `stream` it is the nonce. `offset` is the position in the byte stream of the first
byte of a DATA frame, the end position of an EOF, and 0 elsewhere. The hub reads only the header;
integers are big-endian.
"""

import struct
from enum import IntEnum

from msgspec import Struct

VERSION = 1
HEADER = struct.Struct(">BBH16sIQQ")
TAG = 16  # bytes that AES-GCM adds
MAX_DATA = 32 * 1024
MAX_FRAME = HEADER.size + MAX_DATA + TAG


class FrameType(IntEnum):
    OPEN = 1
    ACCEPT = 2
    DATA = 3
    CREDIT = 4
    EOF = 5
    RESET = 6
    RESUME = 7


_TYPES = {kind.value: kind for kind in FrameType}  # a call of the enum costs ten times as much


class FrameError(ValueError):
    """Bytes that are no frame of ours."""


class Header(Struct, frozen=True, gc=False):
    type: FrameType
    session: bytes
    stream: int
    number: int
    offset: int

    def pack(self) -> bytes:
        return HEADER.pack(
            VERSION, self.type, 0, self.session, self.stream, self.number, self.offset
        )


def parse(frame: bytes | memoryview) -> Header:
    """Read a frame's header. Raises FrameError; looks at no sealed byte."""
    if not HEADER.size + TAG <= len(frame) <= MAX_FRAME:
        raise FrameError(f"{len(frame)} bytes; a frame has {HEADER.size + TAG} to {MAX_FRAME}")
    version, type, reserved, session, stream, number, offset = HEADER.unpack_from(frame)
    kind = _TYPES.get(type)
    if version != VERSION:
        raise FrameError(f"frame version {version}; this side speaks {VERSION}")
    if reserved:
        raise FrameError("reserved bits are set")
    if kind is None:
        raise FrameError(f"frame type {type} is unknown")
    return Header(kind, session, stream, number, offset)
