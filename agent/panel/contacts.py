"""The three published contacts (R-ASR-3): device, connectivity and cybersecurity support.

`contacts.json` in the state directory names those of the vendor; without it, the demo's are shown.
"""

import logging
from pathlib import Path
from typing import Annotated

import msgspec

FILE = "contacts.json"
_MAX_BYTES = 4096
Reach = Annotated[str, msgspec.Meta(min_length=3, max_length=60)]

log = logging.getLogger(__name__)


class Contacts(msgspec.Struct, frozen=True, kw_only=True):
    """A telephone number or an address each."""

    device: Reach = "+1 800 555 0142"
    connectivity: Reach = "+1 800 555 0143"
    cybersecurity: Reach = "security@patency.example"


def load(state: Path) -> Contacts:
    try:
        with (state / FILE).open("rb") as file:
            return msgspec.json.decode(file.read(_MAX_BYTES), type=Contacts)
    except FileNotFoundError:
        return Contacts()
    except (OSError, msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError):
        log.exception("%s cannot be used", state / FILE)
        return Contacts()
