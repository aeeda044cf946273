"""What the command can fail with. Exit codes are a contract: docs/cli.md."""

from enum import IntEnum


class Exit(IntEnum):
    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_ALLOWED = 3
    NOT_FOUND = 4
    UNREACHABLE = 5
    REFUSED = 6
    EXPIRED = 7
    OVER = 8
    NOT_BELIEVED = 9
    TIMED_OUT = 10
    INTERRUPTED = 130  # as a shell says of a program that Ctrl-C ended


class ClientError(Exception):
    """An end of the command. The message says what happened and what to do about it."""

    exit = Exit.FAILED

    def __init__(self, message: str, exit: Exit | None = None) -> None:
        super().__init__(message)
        self.message = message
        if exit is not None:
            self.exit = exit


class NotAllowed(ClientError):
    exit = Exit.NOT_ALLOWED


class NotFound(ClientError):
    exit = Exit.NOT_FOUND


class Unreachable(ClientError):
    """The portal does not answer, or not as a portal would."""

    exit = Exit.UNREACHABLE


class SessionOver(ClientError):
    exit = Exit.OVER


class NotBelieved(ClientError):
    """What the portal showed is not what the injector made, or not what was asked for."""

    exit = Exit.NOT_BELIEVED
