"""Ask a device for its fast rate while somebody watches it, and only then.

A lease, not a switch: each request holds for `FOR_S` seconds at the device, so a page that closes,
a portal that dies or a message that is lost costs at most that long. However many watch, a
device is asked once every `RENEW_S`.
"""

import time
from collections.abc import Callable

from channels.db import database_sync_to_async

from agent.wire.messages import Rate
from fleet.core import ports

HZ = 5.0
FOR_S = 30
RENEW_S = 20.0


class Leases:
    """When each device was last asked. Entries that have lapsed are dropped as others are made."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._asked: dict[str, float] = {}

    async def touch(self, device: str, *, again: bool = False) -> bool:
        """Ask unless it was done lately; `again` asks anyway (the device has just connected).

        True when the device was asked.
        """
        now = self._clock()
        last = self._asked.get(device)
        if last is not None and now - last < RENEW_S and not again:
            return False
        self._asked = {d: at for d, at in self._asked.items() if now - at < FOR_S}
        self._asked[device] = now
        # In a thread: the port waits for the commit of a transaction, which touches the database.
        await database_sync_to_async(ports.send_down)(device, Rate(hz=HZ, for_s=FOR_S))
        return True


leases = Leases()
