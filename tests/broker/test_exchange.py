"""Many transports as one: a device has one seat, whatever order their words arrive in.

Requirements: R-CON-5.
"""

import random
from dataclasses import dataclass, field, replace

import pytest

from broker.denied import DenyList
from broker.errors import Reason
from broker.exchange import Exchange
from broker.lanes import ConnectionInfo, Delivery
from broker.transport import Health
from tests.broker.conftest import A, B, Recorder

INFO = ConnectionInfo("127.0.0.1:5", "TLSv1.3", "x", "1", 0.0, 10)


@dataclass
class Pipe:
    """A transport that writes down what is asked of it."""

    asked: list[tuple[object, ...]] = field(default_factory=list)
    full: bool = False
    up: bool = True

    def publish(self, topic: str, payload: bytes | memoryview) -> bool:
        self.asked.append(("publish", topic))
        return True

    def frame(self, device: str, frame: bytes) -> bool:
        return not self.full

    def kick(self, device: str, reason: Reason = Reason.KICKED) -> bool:
        self.asked.append(("kick", device, reason))
        return True

    def deny(self, denied: DenyList) -> None:
        self.asked.append(("deny", denied))

    def resume(self) -> None:
        self.asked.append(("resume",))

    def health(self) -> Health:
        return Health(self.up, 1)


class Two:
    def __init__(self) -> None:
        self.portal = Recorder()
        self.exchange = Exchange(self.portal)
        self.east, self.west = Pipe(), Pipe()
        self.exchange.add("east", self.east)
        self.exchange.add("west", self.west)
        self.to_east = self.exchange.entrance("east")
        self.to_west = self.exchange.entrance("west")
        for pipe in (self.east, self.west):
            pipe.asked.clear()


@pytest.fixture
def two() -> Two:
    return Two()


def test_each_word_goes_where_the_device_is(two: Two) -> None:
    two.to_east.connected(A, INFO)
    two.to_west.connected(B, INFO)
    assert two.exchange.publish(f"pat/1/{A}/dn/job/1", b"")
    assert two.exchange.publish(f"pat/1/{B}/dn/s", b"")
    assert two.exchange.kick(B)
    two.west.full = True
    assert (two.exchange.frame(A, b"x"), two.exchange.frame(B, b"x")) == (True, False)
    assert two.east.asked == [("publish", f"pat/1/{A}/dn/job/1")]
    assert two.west.asked == [("publish", f"pat/1/{B}/dn/s"), ("kick", B, Reason.KICKED)]
    assert two.portal.log == [
        ("connected", A, replace(INFO, server="east")),
        ("connected", B, replace(INFO, server="west")),
    ]
    assert two.exchange.health() == Health(True, 2)


def test_nobody_there(two: Two) -> None:
    assert not two.exchange.publish(f"pat/1/{A}/dn/job/1", b"")
    assert not two.exchange.publish("pat/1", b"")
    assert not two.exchange.kick(A)
    assert not two.exchange.frame(A, b"x")
    assert two.exchange.server_of(A) is None


def test_a_device_that_moved_before_its_old_server_noticed(two: Two) -> None:
    two.to_east.connected(A, replace(INFO, since=1))
    two.to_west.connected(A, replace(INFO, since=2))
    two.to_east.disconnected(A, Reason.SILENT)  # late: it is not there any more
    assert [entry[:2] for entry in two.portal.log] == [
        ("connected", A), ("disconnected", A), ("connected", A),
    ]  # fmt: skip
    assert two.portal.log[1] == ("disconnected", A, Reason.TAKEN_OVER)
    assert two.exchange.server_of(A) == "west"
    assert two.east.asked == [("kick", A, Reason.TAKEN_OVER)]


def test_an_old_connection_that_is_reported_late_is_ended_and_not_told(two: Two) -> None:
    """A link that comes back tells of a device that has long been elsewhere."""
    two.to_west.connected(A, replace(INFO, since=2))
    two.to_east.connected(A, replace(INFO, since=1))
    assert [entry[:2] for entry in two.portal.log] == [("connected", A)]
    assert two.exchange.server_of(A) == "west"
    assert two.east.asked == [("kick", A, Reason.TAKEN_OVER)]
    assert two.west.asked == []


def test_a_server_that_goes_takes_its_devices_with_it(two: Two) -> None:
    two.to_east.connected(A, INFO)
    two.to_west.connected(B, INFO)
    two.exchange.remove("east")
    assert two.portal.log[-1] == ("disconnected", A, Reason.LINK_LOST)
    assert not two.exchange.publish(f"pat/1/{A}/dn/job/1", b"")
    assert two.exchange.publish(f"pat/1/{B}/dn/job/1", b"")


def test_the_deny_list_reaches_a_server_that_comes_later(two: Two) -> None:
    denied = DenyList(devices=frozenset({A}))
    two.exchange.deny(denied)
    late = Pipe()
    two.exchange.add("late", late)
    assert two.east.asked == two.west.asked == late.asked == [("deny", denied)]
    with pytest.raises(ValueError, match="late"):
        two.exchange.add("late", late)


def test_one_server_is_enough_to_be_up(two: Two) -> None:
    two.exchange.resume()
    assert two.east.asked == two.west.asked == [("resume",)]
    two.east.up = False
    assert two.exchange.health().up
    two.west.up = False
    assert not two.exchange.health().up


def test_lanes_go_straight_through(two: Two) -> None:
    delivery = Delivery(A, "event", 1, b"{}", 1)
    assert two.to_east.up(delivery)
    two.to_west.stream(A, b"frame")
    two.to_west.refused("peer", A, Reason.TOPIC)
    assert two.portal.deliveries == [delivery]
    assert two.portal.frames == [(A, b"frame")]
    assert two.portal.log == [("refused", A, Reason.TOPIC)]


@pytest.mark.parametrize("seed", range(20))
def test_every_connected_has_its_disconnected_in_any_order(two: Two, seed: int) -> None:
    """Servers report truthfully, each in its own order; theirs mix as they like."""
    chance = random.Random(seed)
    doors = {"east": two.to_east, "west": two.to_west}
    words: dict[str, list[tuple[str, str, float]]] = {"east": [], "west": []}
    for step in range(60):
        server, device = chance.choice(("east", "west")), chance.choice((A, B))
        there = [w for w in words[server] if w[1] == device]
        kind = "disconnected" if there and there[-1][0] == "connected" else "connected"
        words[server].append((kind, device, float(step)))
    newest: dict[str, tuple[float, str]] = {}
    for server, said in words.items():
        for device in (A, B):
            own = [w for w in said if w[1] == device]
            if own and own[-1][0] == "connected":
                newest[device] = max(newest.get(device, (-1.0, "")), (own[-1][2], server))
    while any(words.values()):
        server = chance.choice([name for name, said in words.items() if said])
        kind, device, at = words[server].pop(0)
        if kind == "connected":
            doors[server].connected(device, replace(INFO, since=at))
        else:
            doors[server].disconnected(device, Reason.LOST)
    online: dict[str, bool] = {A: False, B: False}
    for kind, device, *_ in two.portal.log:
        assert online[device] is (kind == "disconnected")
        online[device] = not online[device]
    pipes = {"east": two.east, "west": two.west}
    for device, (_at, server) in newest.items():
        if ("kick", device, Reason.TAKEN_OVER) not in pipes[server].asked:
            assert two.exchange.server_of(device) == server
