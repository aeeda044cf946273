"""A gate in another process: the link breaks, the portal restarts, strangers knock.

Both ends are real, over real TLS, with real devices behind. The contract that a link shares with a
gate in this process is in tests/broker/test_transport.py. Requirements: R-CON-5, R-CON-6, R-CON-9.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from broker.denied import DenyList
from broker.errors import NotStarted, Reason
from broker.exchange import Exchange
from broker.link import store
from broker.link.wire import Certificates, Trouble
from broker.options import Limits
from tests.broker import raw
from tests.broker.conftest import A, B, Recorder
from tests.broker.linked import Linked, come_true, limits
from tests.broker.raw import Raw
from tests.tls import Authority, Files, Issued, LinkAuthority

EVENT = f"pat/1/{A}/up/event/1"
FRAMES = f"pat/1/{A}/dn/s"


class World:
    def __init__(
        self, authority: Authority, identities: dict[str, Issued], make: Callable[..., Linked]
    ) -> None:
        self._authority = authority
        self._identities = identities
        self._make = make
        self.portal = Recorder()
        self.made: list[Linked] = []

    async def server(self, **options: Any) -> Linked:
        self.made.append(self._make(**options))
        await self.made[-1].start()
        return self.made[-1]

    async def live(self, server: Linked, device: str = A, *, known: bool = True) -> Raw:
        identity = self._identities[device]
        made = await Raw.open(server.gate.port, self._authority, identity)
        await made.live(device)
        if known:
            await self.portal.told("connected", device)
        return made


@pytest.fixture(scope="session")
def links() -> LinkAuthority:
    return LinkAuthority()


@pytest.fixture
async def world(
    authority: Authority, identities: dict[str, Issued], files: Files, links: LinkAuthority,
    tmp_path: Path,
) -> AsyncIterator[World]:  # fmt: skip
    world = World(
        authority, identities, lambda **options: Linked(files, links, tmp_path / "east", **options)
    )
    yield world
    for each in world.made:
        await each.stop()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_link_that_drops_in_the_middle_of_a_batch(world: World) -> None:
    """What was not decided comes again, in order; the device notices nothing."""
    east = await world.server()
    world.portal.acks = False
    remote = await east.linked(world.portal)
    async with await world.live(east) as device:
        for number in range(1, 11):
            device.send(raw.publish(EVENT, b"%d" % number, first=0x32, id=number))
        await world.portal.until(lambda: len(world.portal.deliveries) == 10)
        first = list(world.portal.deliveries)
        world.portal.deliveries.clear()
        for each in first[:4]:
            each.ack()
        assert [(await device.packet())[1][1] for _ in range(4)] == [1, 2, 3, 4]
        east.cut()
        await world.portal.told("disconnected", A, Reason.LINK_LOST)
        for each in first[4:7]:
            each.ack()  # too late: that link is gone, and nobody must be told
        device.send(raw.publish(EVENT, b"11", first=0x32, id=11))
        await world.portal.until(lambda: len(world.portal.deliveries) == 7)
        assert [each.payload for each in world.portal.deliveries] == [
            b"%d" % n for n in range(5, 12)
        ]
        assert remote.health().up
        for each in world.portal.deliveries:
            each.ack()
        assert [(await device.packet())[1][1] for _ in range(7)] == list(range(5, 12))
        await device.ping()
    assert east.uplink.waiting == 0


async def test_a_portal_that_is_away_keeps_nobody_from_staying(world: World) -> None:
    """Devices come, stay and wait; when the portal is back it knows them all and has all of it."""
    east = await world.server()
    async with await world.live(east, known=False) as device:
        for number in range(1, 4):
            device.send(raw.publish(EVENT, b"%d" % number, first=0x32, id=number))
        device.send(raw.publish(f"pat/1/{A}/up/heartbeat/1", b"{}"))  # QoS 0: not kept
        device.send(raw.publish(f"pat/1/{A}/up/s", b"frame"))
        await device.ping()
        assert east.uplink.waiting == 3
        await east.linked(world.portal)
        assert [await device.packet() for _ in range(3)] == [
            (0x40, bytes((0, number))) for number in (1, 2, 3)
        ]
        assert world.portal.log[0][:2] == ("connected", A)
        assert [each.payload for each in world.portal.deliveries] == [b"1", b"2", b"3"]
        assert world.portal.frames == []
        assert east.uplink.frames_dropped == 1


async def test_what_waits_for_the_portal_is_bounded(world: World) -> None:
    """Beyond the link's window, messages wait in the device's own; it is read all the same."""
    east = await world.server(limits=limits(window=4))
    async with await world.live(east, known=False) as device:
        for number in range(1, 31):
            device.send(raw.publish(EVENT, b"%d" % number, first=0x32, id=number))
        await device.ping()
        assert east.uplink.waiting == 4
        assert east.gate.stats().waiting == 26
        await east.linked(world.portal)
        acked = [(await device.packet())[1][1] for _ in range(30)]
        assert acked == list(range(1, 31))
    assert [each.payload for each in world.portal.deliveries] == [b"%d" % n for n in range(1, 31)]


async def test_a_device_that_left_meanwhile_is_not_spoken_for(world: World) -> None:
    east = await world.server()
    async with await world.live(east, known=False) as device:
        device.send(raw.publish(EVENT, b"1", first=0x32, id=1))
        await device.ping()
    await come_true(lambda: not east.gate.connections)
    remote = await east.linked(world.portal)
    async with await world.live(east, B):
        assert remote.health().devices == 1
    assert not world.portal.has("connected", A)
    assert world.portal.deliveries == []


async def test_a_portal_that_restarts(world: World) -> None:
    """The new one takes over from a link that nobody has closed."""
    east = await world.server()
    before = Recorder()
    old, task = east.portal(before)
    await before.until(lambda: old.health().up)
    async with await world.live(east, known=False) as device:
        await before.told("connected", A)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert before.has("disconnected", A)
        new = await east.linked(world.portal)
        await world.portal.told("connected", A)
        assert new.publish(f"pat/1/{A}/dn/job/1", b"work")
        assert await device.message() == (f"pat/1/{A}/dn/job/1", b"work")
        other, _ = east.portal(Recorder())
        await come_true(lambda: other.health().up or not new.health().up)
        assert len(east.uplink._lines) == 1


async def test_frames_to_a_device_that_does_not_read_stay_within_their_window(
    world: World,
) -> None:
    east = await world.server(limits=limits(frame_bytes=512 * 1024))
    remote = await east.linked(world.portal)
    async with await world.live(east) as device, await world.live(east, B) as other:
        sent = 0
        async with asyncio.timeout(10):
            while True:
                if remote.congested(A):
                    await asyncio.sleep(0.2)
                    if remote.congested(A):
                        assert not remote.frame(A, b"x")
                        break
                assert remote.publish(FRAMES, sent.to_bytes(4) * 8192)
                sent += 1
                await asyncio.sleep(0)
        assert east.gate.stats().buffered_bytes <= 640 * 1024
        assert not remote.congested(B)
        assert remote.publish(f"pat/1/{A}/dn/end/1", b"stop")  # passes the frames at both ends
        for number in range(sent):
            topic, payload = await device.message()
            while topic != FRAMES:
                assert (topic, payload) == (f"pat/1/{A}/dn/end/1", b"stop")
                topic, payload = await device.message()
            assert payload[:4] == number.to_bytes(4)
        await come_true(lambda: not remote.congested(A))
        await other.ping()


async def test_the_deny_list_reaches_the_gate_and_survives_its_restart(world: World) -> None:
    """R-CON-9: within 2 s, and without the portal too."""
    east = await world.server()
    remote = await east.linked(world.portal)
    async with await world.live(east) as device:
        many = frozenset(f"device-{number:06}" for number in range(9000))
        remote.deny(DenyList(devices=many | {A}))
        assert await device.ended(2) == b""
    await come_true(lambda: A in store.load(east.folder).devices)
    await east.stop()
    again = await world.server()  # and no portal
    async with await Raw.open(again.gate.port, world._authority, world._identities[A]) as device:
        device.send(raw.connect(A))
        assert await device.ended() == b""
    async with await world.live(again, B, known=False) as other:
        await other.ping()
    later = await again.linked(world.portal)  # a portal with another list: the newest holds
    await come_true(lambda: store.load(east.folder) == DenyList())
    assert later.health().up
    async with await world.live(again, A):
        pass


async def test_a_gate_without_a_readable_deny_list_does_not_start(world: World) -> None:
    east = await world.server()
    await east.stop()
    (east.folder / "denied.json").write_text("?")
    with pytest.raises(NotStarted):
        await world.server()


@pytest.mark.parametrize("stranger", ["nobody", "device", "server", "another link", "gate"])
async def test_a_stranger_at_the_links_door_gets_nothing(
    world: World, stranger: str, links: LinkAuthority, authority: Authority,
    identities: dict[str, Issued],
) -> None:  # fmt: skip
    """R-CON-6: no certificate, a device's, a gate's, one of another authority, and one of ours that
    is not the portal's: none gets as far as CONNACK, and the portal is not disturbed."""
    east = await world.server()
    remote = await east.linked(world.portal)
    shown = {
        "nobody": None,
        "device": identities[A],
        "server": links.server("west"),
        "another link": LinkAuthority().portal(),
        "gate": links.portal(san="spiffe://patency/access-server/west"),
    }[stranger]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=(east.folder / "link-ca.pem").read_text())
    if shown is not None:
        shown.load(context)
    try:
        knock = await Raw.open(east.uplink.port, authority, None, context=context)
    except OSError:
        pass
    else:
        async with knock:
            knock.send(raw.connect("portal"))
            knock.send(raw.subscribe("link/1/#"))
            assert await knock.ended() == b""
    async with await world.live(east):
        assert remote.health().up


async def test_many_who_say_nothing_are_sent_away(world: World) -> None:
    east = await world.server(limits=limits(connect_s=1.0, places=4))
    idle = [await asyncio.open_connection("127.0.0.1", east.uplink.port) for _ in range(6)]
    await east.linked(world.portal)
    for _reader, writer in idle:
        writer.close()


async def test_a_portal_that_says_something_else(world: World, authority: Authority) -> None:
    """Our own certificate is no licence: a will, another name, a message before SUBSCRIBE."""
    east = await world.server(limits=limits(connect_s=1.0))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=(east.folder / "link-ca.pem").read_text())
    east.links.portal().load(context)
    for said, answer in (
        (raw.connect("portal", flags=4), b""),
        (raw.connect("east"), b""),
        (raw.publish(FRAMES), b""),
        (raw.connect("portal") + raw.publish(FRAMES), b"\x20\x02\0\0"),
        (raw.connect("portal") + raw.subscribe("#"), b"\x20\x02\0\0\x90\x03\0\x01\x80"),
        (b"", b""),
    ):
        async with await Raw.open(east.uplink.port, authority, None, context=context) as portal:
            portal.send(said)
            assert await portal.ended() == answer


async def test_a_server_that_is_not_the_one_is_named(world: World, tmp_path: Path) -> None:
    east = await world.server()
    remote, _task = east.portal(world.portal, east.options("west"))
    await world.portal.until(lambda: remote.trouble is Trouble.NAME)
    assert remote.health().detail == "name"
    assert not remote.health().up


async def test_a_link_that_cannot_be_is_named(world: World) -> None:
    east = await world.server()
    options = east.options()
    LinkAuthority().portal().write(east.folder, "portal")
    remote, task = east.portal(world.portal, options)
    await world.portal.until(lambda: remote.trouble is Trouble.TLS)
    task.cancel()
    await east.uplink.stop()
    remote, _task = east.portal(world.portal)
    await world.portal.until(lambda: remote.trouble is Trouble.UNREACHABLE)


async def test_one_device_and_two_servers(
    world: World, files: Files, links: LinkAuthority, tmp_path: Path
) -> None:
    """A device moves while the link to its first server is down: the newer connection counts."""
    east = await world.server()
    west = Linked(files, links, tmp_path / "west")
    world.made.append(west)
    await west.start()
    exchange = Exchange(world.portal)
    for name, server in (("east", east), ("west", west)):
        portal = Recorder()
        remote, _ = server.portal(portal)
        remote._handler = exchange.entrance(name)
        await portal.until(lambda remote=remote: remote.health().up)
        exchange.add(name, remote)
    async with await world.live(east) as old:
        await come_true(lambda: exchange.server_of(A) == "east")
        async with await world.live(west, known=False) as new:
            await come_true(lambda: exchange.server_of(A) == "west")
            assert await old.ended() == b""  # a copy of the credential, or a socket left behind
            assert exchange.publish(f"pat/1/{A}/dn/job/1", b"work")
            assert await new.message() == (f"pat/1/{A}/dn/job/1", b"work")
            await come_true(lambda: not east.gate.connections)
            assert exchange.server_of(A) == "west"
    assert [entry[0] for entry in world.portal.log][:3] == [
        "connected", "disconnected", "connected",
    ]  # fmt: skip


async def test_the_portal_hears_when_certificates_end(world: World) -> None:
    """The first of the two; of an access server that says nothing of it, what it shows us."""
    for told in (Certificates(server=2e9, link=3e9), Certificates(server=3e9, link=2e9)):
        east = await world.server(certificates=told)
        remote = await east.linked(world.portal)
        assert remote.health().certificates_end == 2e9
        await east.stop()
    silent = await world.server()
    remote = await silent.linked(world.portal)
    shown = x509.load_pem_x509_certificate((silent.folder / "link.pem").read_bytes())
    assert remote.health().certificates_end == shown.not_valid_after_utc.timestamp()


async def test_a_device_may_use_up_its_own_window_alone(world: World) -> None:
    """One that floods while the portal is slow does not keep another's messages back for ever."""
    east = await world.server(gate_limits=Limits(unacked=8))
    world.portal.acks = False
    await east.linked(world.portal)
    async with await world.live(east) as flood, await world.live(east, B) as other:
        for number in range(1, 9):
            flood.send(raw.publish(EVENT, b"x", first=0x32, id=number))
        await world.portal.until(lambda: len(world.portal.deliveries) == 8)
        other.send(raw.publish(f"pat/1/{B}/up/event/1", b"y", first=0x32, id=1))
        await world.portal.until(lambda: len(world.portal.deliveries) == 9)
        world.portal.deliveries[-1].ack()
        assert await other.packet() == (0x40, b"\0\x01")
