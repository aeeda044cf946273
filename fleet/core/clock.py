"""The portal's one clock, and the way between it and the wire's milliseconds."""

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# A device may claim any 53-bit time; what no calendar holds is cut to this (with room for zones).
_LATEST = datetime(9990, 1, 1, tzinfo=UTC)
_LATEST_MS = int((_LATEST - _EPOCH).total_seconds() * 1000)


def now() -> datetime:
    """The time, aware, in UTC."""
    return datetime.now(UTC)


def to_ms(at: datetime) -> int:
    """Milliseconds since 1970-01-01T00:00:00Z."""
    return (at - _EPOCH) // timedelta(milliseconds=1)


def from_ms(ms: int) -> datetime:
    """The aware time of a wire's milliseconds; beyond the year 9989 it is cut off."""
    return _EPOCH + timedelta(milliseconds=min(ms, _LATEST_MS))
