"""What the portal asks of whatever carries messages, and what it is told.

Downwards, `Transport`: publish, kick, deny. Upwards, `broker.lanes.Handler`: connections, messages
whose `ack` follows the commit, stream frames, refusals. A gate in this process (`broker.server`) is
a transport as it is, so nothing is paid for the seam; a gate in another process is one through its
link (`broker.link`); many together are one through `broker.exchange`.

Everything down is at QoS 0 and may be lost: transports are pipes, and whatever matters is sent
again when the device connects. Nothing up at QoS 1 is acknowledged to a device before its `ack`.
"""

from dataclasses import dataclass
from typing import Protocol

from broker.denied import DenyList
from broker.errors import Reason


@dataclass(frozen=True, slots=True)
class Health:
    """How a transport is. `detail` is a code of why it is not up, empty when it is.

    `certificates_end` is when the first certificate of an access server ends, as last heard:
    seconds since 1970, None for one that has said nothing yet and for the gate in this process.
    """

    up: bool
    devices: int
    detail: str = ""
    certificates_end: float | None = None


class Transport(Protocol):
    """Every call is on the event loop and returns at once."""

    def publish(self, topic: str, payload: bytes | memoryview) -> bool:
        """Send to the one device it is for. False when nobody is known to be there, or no room.

        Raises: ValueError for a payload above the bound of the wire.
        """

    def frame(self, device: str, frame: bytes) -> bool:
        """Send a stream frame. False when it would have to wait in memory, or nobody is there: a
        sender does well to try again a little later.

        Raises: ValueError for a frame above the bound of the wire.
        """

    def kick(self, device: str, reason: Reason = Reason.KICKED) -> bool:
        """Cut the device's connection. False when it has none."""

    def deny(self, denied: DenyList) -> None:
        """Refuse these from now on, and cut those that are connected."""

    def resume(self) -> None:
        """The handler has room again: offer it what waits."""

    def health(self) -> Health: ...
