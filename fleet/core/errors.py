"""The portal's errors. What a person sees is translated and says what to do about it."""

from agent.wire.catalogue import RefusalReason


class PortalError(Exception):
    """Something a person or a program asked for that cannot be. `message` carries the remedy;
    `reason` is the audit's code for why, where a refusal is recorded."""

    code = "error"
    status = 400

    def __init__(self, message: str, *, reason: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason


class Invalid(PortalError):
    """The input is wrong."""

    code = "invalid"
    status = 400


class NotAllowed(PortalError):
    """The actor's role does not include this action."""

    code = "not_allowed"
    status = 403

    def __init__(self, message: str, *, reason: str = "not_allowed") -> None:
        super().__init__(message, reason=reason)


class NotFound(PortalError):
    """There is no such thing, or not for this actor: the two look the same."""

    code = "not_found"
    status = 404


class Conflict(PortalError):
    """Right in itself, but not in the state that things are in."""

    code = "conflict"
    status = 409


class TooMany(PortalError):
    """Asked too often."""

    code = "too_many"
    status = 429


class MessageRefused(Exception):
    """An inbound handler decides against a device's message; `reason` is told to the device.

    What the handler wrote is rolled back; `alarm` names an audit action that is recorded after
    that, when the refusal means more than a mistake.
    """

    def __init__(self, reason: RefusalReason, *, alarm: str | None = None) -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.alarm = alarm
