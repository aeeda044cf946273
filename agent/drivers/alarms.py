"""What is wrong now, and the events of its coming and going: each raised once and cleared once."""

from agent.drivers.base import DriverEvent
from agent.wire.catalogue import EventCode, EventPhase

_Key = tuple[EventCode, str | None]


class Alarms:
    """A set of conditions. Changes gather until `take`."""

    def __init__(self) -> None:
        self._raised: dict[_Key, DriverEvent] = {}
        self._changes: list[DriverEvent] = []

    def set(
        self, code: EventCode, active: bool, *, syringe: str | None = None,
        value: float | None = None,
    ) -> None:  # fmt: skip
        """Raise the condition, or clear it; nothing happens when it is already so."""
        key = (code, syringe)
        if active and key not in self._raised:
            event = DriverEvent(code, EventPhase.RAISED, syringe, _rounded(value))
            self._raised[key] = event
            self._changes.append(event)
        elif not active and key in self._raised:
            del self._raised[key]
            self._changes.append(DriverEvent(code, EventPhase.CLEARED, syringe, _rounded(value)))

    def level(
        self, code: EventCode, value: float, *, low: float, back: float, syringe: str | None = None
    ) -> None:
        """Raised below `low`, cleared above `back`; between them it stays as it is."""
        if value < low:
            self.set(code, True, syringe=syringe, value=value)
        elif value > back:
            self.set(code, False, syringe=syringe, value=value)

    def is_raised(self, code: EventCode, syringe: str | None = None) -> bool:
        return (code, syringe) in self._raised

    def raised(self) -> list[DriverEvent]:
        """Oldest first."""
        return list(self._raised.values())

    def take(self) -> list[DriverEvent]:
        changes, self._changes = self._changes, []
        return changes


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
