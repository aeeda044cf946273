"""The deny-list on a gate's disk, so that a restart without the portal lets nobody in."""

import os
from pathlib import Path

import msgspec

from broker.denied import DenyList
from broker.errors import NotStarted

FILE = "denied.json"


class _Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    v: int
    devices: list[str]
    certificates: list[str]


def load(folder: Path) -> DenyList:
    """The list that was in force; an empty one when there never was one.

    Raises: NotStarted when it is there and cannot be read: rather closed than open.
    """
    path = folder / FILE
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=_Kept)
    except FileNotFoundError:
        return DenyList()
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise NotStarted(
            f"{path} cannot be read ({error}). Remove it once the portal can be reached: it sends "
            "the deny-list again."
        ) from error
    return DenyList(devices=frozenset(kept.devices), certificates=frozenset(kept.certificates))


def save(folder: Path, denied: DenyList) -> None:
    """Whole or not at all, and on disk on return. Raises: OSError."""
    kept = _Kept(v=1, devices=sorted(denied.devices), certificates=sorted(denied.certificates))
    path, draft = folder / FILE, folder / f".{FILE}.{os.getpid()}"
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(msgspec.json.encode(kept))
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
