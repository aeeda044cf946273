"""The site's policy: what may happen at this injector, and how long people have.

`policy.json` in the state directory, set at the panel and nowhere else: nothing from the network
writes it. Without the file the defaults hold; with a file that cannot be read, remote access is off
until somebody sets it again. `os` cannot be allowed without a person present (R-ACC-6, R-CON-9).
"""

import logging
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from agent import posix
from agent.wire.catalogue import ClientKind, Level

FILE = "policy.json"
_MAX_BYTES = 16 * 1024

log = logging.getLogger(__name__)


class Rule(StrEnum):
    ALLOW = "allow"
    ASK = "ask"  # a person at the injector approves
    DENY = "deny"


class PolicyError(ValueError):
    """A policy that this agent does not take; the text names the field."""


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Times in seconds."""

    v: Literal[1] = 1
    remote: bool = True  # the panel's switch: remote connection
    diagnostics: Rule = Rule.ALLOW
    service: Rule = Rule.ALLOW
    os: Literal["ask", "deny"] = "ask"  # never allowed without a person
    approval_wait_s: Annotated[int, msgspec.Meta(ge=60, le=600)] = 300
    idle_s: Annotated[int, msgspec.Meta(ge=60, le=3600)] = 900
    renewal_s: Annotated[int, msgspec.Meta(ge=300, le=1800)] = 1800  # of presence
    in_use: Literal["hold", "end"] = "hold"  # a running session, when the injector comes into use
    sessions: Annotated[int, msgspec.Meta(ge=1, le=4)] = 1  # at a time
    command_line_only: bool = False  # a browser's answer is not taken at any level
    browser_os: bool = False  # nor at `os`, unless the site opts in

    def rule(self, level: Level) -> Rule:
        return Rule(
            {Level.DIAGNOSTICS: self.diagnostics, Level.SERVICE: self.service}.get(level, self.os)
        )

    def takes(self, client: ClientKind, level: Level) -> bool:
        """Whether a specialist may work with this at this level."""
        if client is ClientKind.COMMAND_LINE:
            return True
        return not self.command_line_only and (level is not Level.OS or self.browser_os)


CLOSED = Policy(remote=False, diagnostics=Rule.DENY, service=Rule.DENY, os="deny")


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
