"""The gate that a bundle passes before it may leave the injector (R-PRV-1).

Only coded content in the bundle's schema passes: enums, bounded numbers, identifiers, digests.
Nothing is cleaned or cut to fit: what does not belong there means that something is wrong, so the
whole bundle is refused, and the reason names a place and never quotes content.

Beyond the schema: an event has the priority of its code, and times lie within the bundle's time.
Audit entries name specialists by the id that the vendor gave them, and people at the injector by a
local number; the same entries have gone to the portal one by one.
"""

from agent.wire import bundle
from agent.wire.bundle import BundleError, Contents
from agent.wire.catalogue import EVENT_PRIORITY

_SLACK_MS = 60_000  # a clock that was set meanwhile


class PrivacyError(ValueError):
    """The bundle must not leave. The text names the place and quotes no content."""


def seal_off(contents: Contents) -> bytes:
    """The bundle's bytes, if every one of them may leave. Raises PrivacyError."""
    try:
        data = bundle.pack(contents)
        read = bundle.unpack(data)
    except BundleError as error:
        raise PrivacyError(str(error)) from error
    if read != contents:
        raise PrivacyError("the bundle would not say what was put in")
    _check(read)
    return data


def _check(contents: Contents) -> None:
    manifest = contents.manifest
    first, last = manifest.from_at - _SLACK_MS, manifest.to_at + _SLACK_MS
    for kind in (contents.samples, contents.events, contents.audit):
        if not all(first <= item.at <= last for item in kind):
            raise PrivacyError("something in the bundle is not of its time")
    for event in contents.events:
        if EVENT_PRIORITY.get(event.code) is not event.priority:
            raise PrivacyError("an event has another priority than its code")
