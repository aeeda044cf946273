"""`make bench`: speed and memory, each beside its peer in the same run.

A module of this package takes part when it has `run() -> list[Row]`.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure is judged by: at least `floor`, better `aim`. `ratio`: the figure divided by
    its peer's counts, not the figure itself. `less`: less is better."""

    floor: float
    aim: float
    ratio: bool = False
    less: bool = False

    def verdict(self, figure: float) -> str:
        def kept(bound: float) -> bool:
            return figure <= bound if self.less else figure >= bound

        said = "aim kept" if kept(self.aim) else "floor kept" if kept(self.floor) else "MISSED"
        return f"floor {self.floor:g}, aim {self.aim:g}: {said}"


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. `peer` names what it is compared with; no figure when that is not installed."""

    what: str
    value: float
    unit: str
    peer: str = ""
    peer_value: float | None = None
    note: str = ""
    goal: Goal | None = None

    @property
    def ratio(self) -> float | None:
        return self.value / self.peer_value if self.peer_value else None

    def __str__(self) -> str:
        beside = ratio = ""
        if self.peer:
            figure = "not installed" if self.peer_value is None else f"{self.peer_value:,.1f}"
            beside = f"{self.peer} {figure}"
        if self.ratio is not None:
            ratio = f"x {self.ratio:.2f}" if self.ratio >= 0.01 else f"x {self.ratio:.1g}"
        said = " · ".join(part for part in (self._verdict(), self.note) if part)
        line = f"{self.what:<48} {self.value:>11,.1f} {self.unit:<5} {beside:<26} {ratio:<9} {said}"
        return line.rstrip()

    def _verdict(self) -> str:
        if self.goal is None:
            return ""
        figure = self.ratio if self.goal.ratio else self.value
        return "no peer to judge by" if figure is None else self.goal.verdict(figure)
