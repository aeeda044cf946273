"""The agent's errors, kept apart by whose they are: the installation's, the peer's, the disk's, the
network's. The text is for a person, in the reader's language, and says what to do.
"""

from typing import ClassVar


class AgentError(Exception):
    """Base of all. `code` is for programs, the text for people."""

    code: ClassVar[str] = "error"
    exit_status: ClassVar[int] = 1


class StateError(AgentError):
    """The state directory, or a file in it, is missing, unreadable or not what it must be."""

    code = "state"
    exit_status = 2


class AlreadyRunning(StateError):
    """Another process works on this state directory."""

    code = "already_running"


class StoreDamaged(StateError):
    """`agent.db` is no database any more: a person must restore it, or put it aside."""

    code = "store_damaged"


class StoreError(AgentError):
    """The disk did not take it; nothing of it happened."""

    code = "store"
    exit_status = 5


class OutboxFull(StoreError):
    """The outbox, or the disk, has no room for this kind of message."""

    code = "outbox_full"

    def __init__(self, text: str, kind: str) -> None:
        super().__init__(text)
        self.kind = kind


class AuditUnwritable(StoreError):
    """An entry could not be added to the audit chain: remote access must be refused (R-ACC-10)."""

    code = "audit_unwritable"


class NetworkError(AgentError):
    """The server could not be reached, or the connection to it was lost."""

    code = "network"
    exit_status = 4


class EnrolmentRefused(AgentError):
    """The server answered, and would not enrol this injector. `reason` is the server's code."""

    code = "enrolment_refused"
    exit_status = 6

    def __init__(self, text: str, reason: str = "") -> None:
        super().__init__(text)
        self.reason = reason


class PeerError(AgentError):
    """The portal sent what this agent must not use."""

    code = "peer"


class ControlError(AgentError):
    """A local command was refused. `reason` is its code on the socket."""

    code = "control"

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class NotRunning(AgentError):
    """No agent answers on the control socket of this state directory."""

    code = "not_running"
    exit_status = 3
