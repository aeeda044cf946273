"""Deliveries that the portal has not decided on, in order, within a bound. Pure.

A delivery keeps its packet id from the first time it is sent until its PUBACK, over any number of
links. A device that leaves takes with it what is not on its way: its new connection sends it again.
What is on its way keeps its id, so that a late PUBACK is not taken for another's.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from broker.lanes import Delivery

MOST_IDS = 65_535


@dataclass(slots=True)
class _Held:
    delivery: Delivery
    sent: bool = False  # on the present link
    before: bool = False  # on an earlier one
    orphan: bool = False


class Window:
    """`messages` and `most_bytes` bound what is held; one larger message fits when it is empty."""

    def __init__(self, *, messages: int, most_bytes: int) -> None:
        if not 0 < messages < MOST_IDS:
            raise ValueError(f"{messages} messages; from 1 to {MOST_IDS - 1}")
        self._messages = messages
        self._most_bytes = most_bytes
        self._held: dict[int, _Held] = {}  # oldest first
        self._of: dict[str, set[int]] = {}  # a device's, so that a mass drop costs no search
        self._bytes = 0
        self._last = 0

    def __len__(self) -> int:
        return len(self._held)

    @property
    def bytes(self) -> int:
        return self._bytes

    @property
    def roomy(self) -> bool:
        """Half of it is free: worth telling those who wait."""
        return len(self._held) <= self._messages // 2 and self._bytes <= self._most_bytes // 2

    def add(self, delivery: Delivery, *, sent: bool) -> int | None:
        """Hold a delivery; `sent` when it goes on the present link at once. Gives its packet id,
        or None when there is no room."""
        size = len(delivery.payload)
        if len(self._held) >= self._messages:
            return None
        if self._held and self._bytes + size > self._most_bytes:
            return None
        number = self._last % MOST_IDS + 1
        while number in self._held:
            number = number % MOST_IDS + 1
        self._last = number
        self._held[number] = _Held(delivery, sent=sent)
        self._of.setdefault(delivery.device, set()).add(number)
        self._bytes += size
        return number

    def decided(self, number: int) -> Delivery | None:
        """PUBACK: let it go. None when nothing of this number was sent on this link."""
        held = self._held.get(number)
        if held is None or not held.sent:
            return None
        self._remove(number)
        return held.delivery

    def left(self, device: str) -> None:
        """The device's connection is over: nobody waits for these acknowledgements."""
        for number in list(self._of.get(device, ())):
            held = self._held[number]
            held.orphan = True
            if not held.sent:
                self._remove(number)

    def broken(self) -> None:
        """The link is gone: nothing is on its way any more."""
        for number, held in list(self._held.items()):
            if held.orphan:
                self._remove(number)
            else:
                held.before = held.before or held.sent
                held.sent = False

    def send(self) -> Iterator[tuple[int, Delivery, bool]]:
        """A new link: everything that is held, oldest first, as (id, delivery, sent before)."""
        for number, held in self._held.items():
            held.sent = True
            yield number, held.delivery, held.before

    def _remove(self, number: int) -> None:
        delivery = self._held.pop(number).delivery
        self._bytes -= len(delivery.payload)
        own = self._of[delivery.device]
        own.discard(number)
        if not own:
            del self._of[delivery.device]
