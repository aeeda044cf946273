"""Topics of the wire, and the access rule that is made of them.

`pat/1/{device}/up/{type}/{version}` goes from an injector to the portal,
`pat/1/{device}/dn/{type}/{version}` comes back, and `pat/1/{device}/up/s`, `…/dn/s` carry stream
frames. A device publishes only under its own `up/` and subscribes only under its own `dn/`.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

PREFIX = "pat/1"
STREAM = "s"

# No dot: a RabbitMQ topic exchange would turn it into a level separator.
DEVICE_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")
# Two characters at least: a type `s` would be taken for the stream lane.
_TYPE = r"[a-z][a-z0-9-]{1,31}"
_TOPIC = re.compile(
    rf"pat/1/(?P<device>{DEVICE_ID.pattern})/(?P<direction>up|dn)/"
    rf"(?:(?P<stream>s)|(?P<type>{_TYPE})/(?P<version>[1-9][0-9]{{0,3}}))"
)


class Direction(StrEnum):
    UP = "up"
    DOWN = "dn"


@dataclass(frozen=True, slots=True)
class Topic:
    """A parsed topic. `type` is `"s"` and `version` 0 on the stream lane."""

    device: str
    direction: Direction
    type: str
    version: int

    def __str__(self) -> str:
        if self.type == STREAM:
            return f"{PREFIX}/{self.device}/{self.direction}/{STREAM}"
        return f"{PREFIX}/{self.device}/{self.direction}/{self.type}/{self.version}"


def parse(topic: str) -> Topic | None:
    """Read a topic name, or return None when it is not one of ours."""
    match = _TOPIC.fullmatch(topic)
    if match is None:
        return None
    if match["stream"]:
        return Topic(match["device"], Direction(match["direction"]), STREAM, 0)
    return Topic(
        match["device"], Direction(match["direction"]), match["type"], int(match["version"])
    )


def up(device: str, type: str, version: int) -> str:
    return f"{PREFIX}/{device}/up/{type}/{version}"


def down(device: str, type: str, version: int) -> str:
    return f"{PREFIX}/{device}/dn/{type}/{version}"


def up_stream(device: str) -> str:
    return f"{PREFIX}/{device}/up/{STREAM}"


def down_stream(device: str) -> str:
    return f"{PREFIX}/{device}/dn/{STREAM}"


def down_filter(device: str) -> str:
    """The one subscription a device makes."""
    return f"{PREFIX}/{device}/dn/#"


def is_device_id(text: str) -> bool:
    return DEVICE_ID.fullmatch(text) is not None


def may_publish(device: str, topic: str) -> bool:
    """Whether this device may publish on this topic name: its own `up/` only."""
    parsed = parse(topic)
    return parsed is not None and parsed.device == device and parsed.direction is Direction.UP


def may_subscribe(device: str, topic_filter: str) -> bool:
    """Whether this device may subscribe to this filter: its own `dn/`, whole or one topic of it."""
    if topic_filter == down_filter(device):
        return is_device_id(device)
    parsed = parse(topic_filter)
    return parsed is not None and parsed.device == device and parsed.direction is Direction.DOWN
