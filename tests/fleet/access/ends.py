"""Both ends of a sealed stream, with the real multiplexer and no network of their own."""

import os
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from agent.wire.mux import Accepted, Data, Ended, Event, Mux, Opened
from agent.wire.seal import Role, Seal, derive
from fleet.access.hub import Hub


def seals(session: str) -> tuple[Seal, Seal]:
    """The client's and the device's."""
    client, device = X25519PrivateKey.generate(), X25519PrivateKey.generate()
    binding, name = os.urandom(32), bytes.fromhex(session)

    def seal(private: X25519PrivateKey, peer: X25519PrivateKey, role: Role) -> Seal:
        public = peer.public_key().public_bytes_raw()
        return derive(private=private, peer=public, binding=binding, session=name, role=role)

    return seal(client, device, Role.CLIENT), seal(device, client, Role.DEVICE)


class EchoDevice:
    """Accepts every stream and sends back what comes. Frames go straight into the hub.

    With `held`, frames pile up instead of being answered: a device whose connection is full.
    """

    def __init__(self, device: str, seal: Seal, hub: Hub) -> None:
        self.device = device
        self.mux = Mux(seal)
        self.hub = hub
        self.full = False
        self.got: list[bytes] = []
        self.services: list[str] = []
        self._echo: dict[int, bytearray] = {}

    def frame(self, device: str, frame: bytes) -> bool:
        """What fleet.core.ports calls to send a frame down."""
        if self.full or device != self.device:
            return False
        self.got.append(frame)
        for event in self.mux.receive(frame):
            self._event(event)
        self.pump()
        return True

    def pump(self) -> None:
        for stream, waiting in self._echo.items():
            size = min(self.mux.writable(stream), len(waiting))
            self.mux.send(stream, bytes(waiting[:size]))
            del waiting[:size]
        while (frame := self.mux.next_frame()) is not None:
            self.hub.from_device(self.device, frame)

    def _event(self, event: Event) -> None:
        if isinstance(event, Opened):
            self.services.append(event.service)
            self._echo[event.stream] = bytearray()
            self.mux.accept(event.stream)
        elif isinstance(event, Data):
            self._echo[event.stream] += event.data
            self.mux.consumed(event.stream, len(event.data))
        elif isinstance(event, Ended):
            self.mux.end(event.stream)


class ClientEnd:
    """A specialist's program without its socket: `send` carries a frame away."""

    def __init__(self, seal: Seal, send: Callable[[bytes], None]) -> None:
        self.mux = Mux(seal)
        self.received: dict[int, bytearray] = {}
        self.accepted: set[int] = set()
        self._send = send

    def frame(self, frame: bytes) -> None:
        for event in self.mux.receive(frame):
            if isinstance(event, Accepted):
                self.accepted.add(event.stream)
            elif isinstance(event, Data):
                self.received.setdefault(event.stream, bytearray()).extend(event.data)
                self.mux.consumed(event.stream, len(event.data))
        self.pump()

    def pump(self) -> None:
        while (frame := self.mux.next_frame()) is not None:
            self._send(frame)
