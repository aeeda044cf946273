"""What a multiplexer tells its owner: events, reset codes, and the two kinds of error."""

from enum import IntEnum

from msgspec import Struct


class ResetCode(IntEnum):
    """Why a stream was cut, or a frame was not taken."""

    CANCELLED = 0  # the program that used it went away
    REFUSED = 1  # the session does not allow this service
    UNREACHABLE = 2  # nothing listens for this service
    BUSY = 3  # too many streams
    GAP = 4  # frames were lost on the way
    REPLAY = 5
    CREDIT = 6  # more was sent than was granted
    PROTOCOL = 7  # a frame that may not come now, or makes no sense
    SEAL = 8  # not sealed by the other end of this session
    SESSION_OVER = 9
    INTERNAL = 10


class MuxError(ValueError):
    """A frame that was not taken; nothing changed. The peer, or someone on the way, is at fault."""

    def __init__(self, code: ResetCode, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class LocalError(RuntimeError):
    """The caller on this side asked for what it may not: see the method's documentation."""


class Opened(Struct, frozen=True, gc=False):
    """The client asks for a service (device side): answer with accept() or reset()."""

    stream: int
    service: str
    bulk: bool


class Accepted(Struct, frozen=True, gc=False):
    """The device took the stream (client side); it is writable from now on."""

    stream: int


class Data(Struct, frozen=True, gc=False):
    """Bytes from the peer. Call consumed() when they are used, or the stream runs dry."""

    stream: int
    data: bytes


class Ended(Struct, frozen=True, gc=False):
    """The peer sends no more; this side still may."""

    stream: int


class Credited(Struct, frozen=True, gc=False):
    """More may be sent."""

    stream: int


class Acknowledged(Struct, frozen=True, gc=False):
    """The peer has used everything this side sent, up to and with its end."""

    stream: int


class Reset(Struct, frozen=True, gc=False):
    """The stream is gone in both directions. `by_peer` is false when this side found the fault."""

    stream: int
    code: ResetCode
    by_peer: bool


Event = Opened | Accepted | Data | Ended | Credited | Acknowledged | Reset
