"""What a page may watch, by name."""

import re
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    DEVICE = "device"
    SESSION = "session"
    EXECUTION = "execution"
    ORGANISATION = "organisation"
    FLEET = "fleet"


_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Group:
    """`fleet`, or `<kind>.<id>`. The characters are those a channel layer allows in a name."""

    kind: Kind
    id: str = ""

    def __str__(self) -> str:
        return f"{self.kind}.{self.id}" if self.id else str(self.kind)


def parse(name: object) -> Group | None:
    """Read a group's name; None when it is not one of ours."""
    if not isinstance(name, str):
        return None
    if name == Kind.FLEET:
        return Group(Kind.FLEET)
    kind, dot, id = name.partition(".")
    if not dot or kind == Kind.FLEET or kind not in set(Kind) or not _ID.fullmatch(id):
        return None
    return Group(Kind(kind), id)
