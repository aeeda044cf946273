"""What a device is told of access servers: when it says hello, and when the list changes."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from agent.wire import messages
from agent.wire.messages import Message
from fleet.core import clock, ports
from fleet.inventory.models import Device
from fleet.servers import selectors

MOST = 16  # in one list; the schema's bound


def _message(now: datetime) -> messages.Servers:
    found = selectors.for_devices(now.date())[:MOST]
    return messages.Servers(
        servers=[messages.AccessServer(host=each.host, port=each.port) for each in found]
    )


def pending(device: Device) -> Iterator[Message]:
    """The list, at every hello: a device that has it already does nothing."""
    if messages.Servers.VERSION in device.knows.get(messages.Servers.TYPE, ()):
        yield _message(clock.now())


@dataclass(slots=True)
class Told:
    """Tells devices on line when the list has changed since the last look."""

    _told: messages.Servers | None = None

    def tell(self, now: datetime) -> None:
        """A tick. What changed while nobody looked, devices hear when they say hello."""
        message = _message(now)
        before, self._told = self._told, message
        if before is None or before == message:
            return
        for device in Device.objects.filter(online=True).only("id", "knows"):
            if message.VERSION in device.knows.get(message.TYPE, ()):
                ports.send_down(device.pk, message)
