"""What may happen at this injector at this moment, and how long people have: what the desk goes by.

Without the hospital's signed policy (`agent.access.site`), `policy.json` in the state directory
says, set at the panel and nowhere else: nothing from the network writes it. With a signed one, only
`remote` counts in it. Without the file the defaults hold; with a file that cannot be read, remote
access is off until somebody sets it again. `os` cannot be allowed without a person present
(R-ACC-6, R-CON-9).
"""

import logging
from pathlib import Path
from typing import Any, Literal

import msgspec

from agent import posix
from agent.wire.site_policy import Rule as Rule
from agent.wire.site_policy import Settings

FILE = "policy.json"
_MAX_BYTES = 16 * 1024

log = logging.getLogger(__name__)


class PolicyError(ValueError):
    """A policy that this agent does not take; the text names the field."""


class Policy(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Times in seconds."""

    v: Literal[1] = 1
    remote: bool = True  # the panel's switch: remote connection

    def within(self, settings: Settings) -> "Policy":
        """The same switch, with these settings."""
        fields = {name: getattr(settings, name) for name in Settings.__struct_fields__}
        return Policy(remote=self.remote, **fields)


CLOSED = Policy(remote=False, diagnostics=Rule.DENY, service=Rule.DENY, os="deny", jobs="deny")


def decode(data: bytes) -> Policy:
    """Raises PolicyError."""
    try:
        return msgspec.json.decode(data, type=Policy)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise PolicyError(str(error)) from error


def change(policy: Policy, fields: dict[str, Any]) -> Policy:
    """The policy with these fields set. Raises PolicyError."""
    return decode(msgspec.json.encode({**msgspec.to_builtins(policy), **fields}))


def load(state: Path) -> Policy:
    path = state / FILE
    try:
        with path.open("rb") as file:
            return decode(file.read(_MAX_BYTES))
    except FileNotFoundError:
        return Policy()
    except (OSError, PolicyError):
        log.exception("%s cannot be used: remote access is off until it is set at the panel", path)
        return CLOSED


def save(state: Path, policy: Policy) -> None:
    """Durable when it returns. Raises OSError."""
    posix.write_private(state / FILE, msgspec.json.encode(policy))
