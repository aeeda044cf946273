"""`make bench`: speed and memory, each beside its peer in the same run.

A module of this package takes part when it has `run() -> list[Row]`.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. `peer` names what it is compared with; no figure when that is not installed."""

    what: str
    value: float
    unit: str
    peer: str = ""
    peer_value: float | None = None
    note: str = ""

    def __str__(self) -> str:
        beside = ""
        if self.peer:
            figure = "not installed" if self.peer_value is None else f"{self.peer_value:,.1f}"
            beside = f"{self.peer} {figure}"
        return f"{self.what:<46} {self.value:>12,.1f} {self.unit:<8} {beside:<28} {self.note}"
