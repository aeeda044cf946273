"""How much a line still has to take, and how much of it is reasonable (Linux).

What was written to a socket cannot be overtaken. On a slow line a stream would fill the kernel and
every modem on the way with seconds of frames, and an access request would wait behind them
(R-CON-4). The kernel knows how much the peer has not acknowledged yet (SIOCOUTQ); from that and
from what was written follows the rate at which the line takes bytes while there are any. No more is
given to it than it takes within TARGET_S beyond its round trip. Where the kernel cannot be asked,
only the transport's own bound holds. Behind a proxy this is the line to the proxy.
"""

import array
import socket
import struct
import sys

TARGET_S = 0.2
LEAST = 4 * 1024  # bytes that may always be on the way
SAMPLE_S = 0.05  # a rate is counted over so long, or until the line is empty
REMEMBERED_S = 2.0  # how long a round trip is believed

_SIOCOUTQ = 0x5411
_TCP_INFO = 11
_INFO = 256
_MIN_RTT_US = 148  # offset in struct tcp_info, whose fields never move (linux/tcp.h)


class Allowance:
    """How much may be on the way, by the rate at which the line took the last bytes. It at most
    doubles from one sample to the next: what fills a buffer on the way looks fast. No IO; `now` in
    seconds of any clock, sizes in bytes."""

    __slots__ = ("_began", "_delivered", "bytes")

    def __init__(self) -> None:
        self.bytes = float(LEAST)
        self._began: float | None = None
        self._delivered = 0

    @property
    def measuring(self) -> bool:
        """A rate is being counted."""
        return self._began is not None

    def look(self, now: float, delivered: int, *, busy: bool, round_trip_s: float) -> None:
        """So many bytes were taken in all; `busy` while there are more to take."""
        began, long = self._began, max(SAMPLE_S, round_trip_s)
        if began is not None and now > began and (now - began >= long or not busy):
            rate = (delivered - self._delivered) / (now - began)
            wanted = rate * (round_trip_s + TARGET_S)
            self.bytes = max(float(LEAST), min(wanted, 2 * self.bytes))
            self._began = None
        if busy and self._began is None:
            self._began, self._delivered = now, delivered


class Line:
    """Of one connection, by its descriptor. Sizes in bytes."""

    __slots__ = ("_allowance", "_fd", "_round_trip_at", "_round_trip_s", "_taken")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._allowance = Allowance()
        self._round_trip_s = 0.0
        self._round_trip_at = -REMEMBERED_S
        self._taken = 0  # bytes, when the kernel was last asked

    def has_room(self, now: float, written: int, buffered: int) -> bool:
        """Whether a frame given now would not wait long, when so much was written in all, of which
        so much is not with the kernel yet."""
        if written - self._taken < LEAST and not self._allowance.measuring:
            return True  # whoever types writes so little that there is nothing to ask
        waiting = _waiting(self._fd) + buffered
        self._taken = written - waiting
        busy = waiting >= LEAST
        if busy and now - self._round_trip_at >= REMEMBERED_S:
            self._round_trip_at = now
            self._round_trip_s = _round_trip_s(self._fd)
        self._allowance.look(now, written - waiting, busy=busy, round_trip_s=self._round_trip_s)
        return not busy or waiting < self._allowance.bytes


def line(fd: int) -> Line | None:
    """None where there is nobody to ask."""
    return Line(fd) if sys.platform == "linux" and fd >= 0 else None


def _waiting(fd: int) -> int:
    """Bytes that the peer's kernel has not acknowledged."""
    import fcntl

    count = array.array("i", [0])
    try:
        fcntl.ioctl(fd, _SIOCOUTQ, count)
    except OSError:  # closed meanwhile
        return 0
    return count[0]


def _round_trip_s(fd: int) -> float:
    # The event loop's stand-in for the socket answers no questions, so one is put around the
    # descriptor for the length of this call.
    asked = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=fd)
    try:
        info = asked.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _INFO)
    except OSError:
        return 0.0
    finally:
        asked.detach()
    if len(info) < _MIN_RTT_US + 4:  # a kernel before 4.6
        return 0.0
    (round_trip_us,) = struct.unpack_from("=I", info, _MIN_RTT_US)
    return float(round_trip_us) / 1e6
