"""amqtt behind the gate: it asks our plugin, starts only with it, and costs the same at 5,000.

Requirements: R-CON-4, R-CON-6. THREATS: "ACL twice", "amqtt started without our ACL plugin".
"""

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import amqtt.broker
import pytest
from amqtt.contexts import Action, BrokerConfig, ListenerConfig, ListenerType
from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
from amqtt.session import Session

from broker import acl, plugin
from broker.errors import GateError, NotStarted
from broker.packets import connect_packet
from broker.session import LISTENER, Inlet, Link, Outlet, Registry
from tests.broker import raw
from tests.broker.conftest import A, B, Running

PEER = ("127.0.0.1", 1)


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    found = Registry()
    await found.start()
    yield found
    await found.shutdown()


async def opened(registry: Registry, device: str) -> Link:
    link = Link(registry, device, PEER)
    assert await link.connect()
    return link


async def test_session_and_subscriptions(registry: Registry) -> None:
    link = await opened(registry, A)
    assert set(registry.sessions) == {A}
    assert await link.subscribe([f"pat/1/{A}/dn/#"]) == [0]
    assert registry.filters(A) == {f"pat/1/{A}/dn/#"}
    link.unsubscribe([f"pat/1/{A}/dn/#"])
    assert registry.filters(A) == frozenset()
    assert not registry.subscriptions
    assert await link.subscribe([f"pat/1/{A}/dn/#"]) == [0]
    link.close()
    assert not registry.sessions
    assert not registry.subscriptions


async def test_a_session_is_an_entry_and_nothing_that_runs(registry: Registry) -> None:
    """ADR 0021: 13 KB of tasks, queues and pipes a device otherwise."""
    before = asyncio.all_tasks()
    links = [await opened(registry, f"device-{number:04}") for number in range(50)]
    for number, link in enumerate(links):
        assert await link.subscribe([f"pat/1/device-{number:04}/dn/#"]) == [0]
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
    assert len(registry.sessions) == len(registry.subscriptions) == 50
    gc.collect()
    kept = (BrokerProtocolHandler, Inlet, Outlet)
    assert not [each for each in gc.get_objects() if isinstance(each, kept)]
    for link in links:
        link.close()
    assert not registry.subscriptions


async def test_the_plugin_refuses_on_its_own(registry: Registry) -> None:
    """ACL twice: even with the gate out of the way."""
    link = await opened(registry, A)
    wanted = ["#", f"pat/1/{B}/dn/#", "$SYS/#", f"pat/1/{A}/dn/job/1"]
    assert await link.subscribe(wanted) == [128, 128, 128, 0]
    assert registry.filters(A) == {f"pat/1/{A}/dn/job/1"}
    link.close()


async def test_when_the_gates_own_rule_is_broken_the_plugin_still_stands(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ACL twice, the other way round: the gate lets everything pass, amqtt's plugin does not."""
    monkeypatch.setattr("broker.dialogue.acl.may_subscribe", lambda device, text: True)
    # The plugin asks the wire's rule; the patch above must not have reached it.
    monkeypatch.setattr(plugin, "acl", _Fresh())
    async with await running.live(A, subscribed=False) as device:
        device.send(raw.subscribe(f"pat/1/{B}/dn/#", "#", f"pat/1/{A}/dn/#"))
        assert await device.packet() == (0x90, b"\0\x01\x80\x80\0")
        assert not running.gate.publish(f"pat/1/{B}/dn/job/1", b"")


class _Fresh:
    """The access rule as `broker.acl` has it, not patched."""

    def __init__(self) -> None:
        from agent.wire import topics

        self.may_subscribe = topics.may_subscribe
        self.may_receive = acl.may_receive


async def filtered(found: plugin.GatePlugin, action: Any, topic: str | None) -> bool:
    session = Session()
    session.client_id = A
    return await found.topic_filtering(session=session, topic=topic, action=action)


async def test_the_plugins_rule(registry: Registry) -> None:
    found = registry.plugins_manager.plugins[0]
    assert isinstance(found, plugin.GatePlugin)
    assert await filtered(found, Action.PUBLISH, f"pat/1/{A}/up/event/1")
    assert await filtered(found, Action.SUBSCRIBE, f"pat/1/{A}/dn/#")
    assert await filtered(found, Action.RECEIVE, f"pat/1/{A}/dn/job/1")
    assert not await filtered(found, Action.PUBLISH, f"pat/1/{A}/dn/job/1")
    assert not await filtered(found, Action.RECEIVE, f"pat/1/{B}/dn/job/1")
    assert not await filtered(found, None, f"pat/1/{A}/dn/#")
    assert not await filtered(found, Action.SUBSCRIBE, None)
    assert not await found.topic_filtering(session=None, topic="x", action=Action.PUBLISH)


@pytest.mark.parametrize(
    "connect",
    [
        raw.connect(A),
        raw.connect(A, flags=0x80, tail=raw.text("guess" * 9)),
        raw.connect("no", flags=0x80, tail=raw.text("PROOF")),
        raw.connect(A, clean=False, flags=0x80, tail=raw.text("PROOF")),
        raw.connect(A, flags=0x84, tail=raw.text("t") + raw.text("m") + raw.text("PROOF")),
    ],
)
async def test_amqtt_takes_nobody_whom_the_gate_does_not_vouch_for(
    registry: Registry, connect: bytes
) -> None:
    # Broker._authenticate: with the default AnonymousAuthPlugin anybody is welcome.
    inlet = Inlet(_with_proof(connect, registry.proof.encode()))
    outlet = Outlet(PEER)
    async with asyncio.timeout(2):
        await registry.serve(inlet, outlet)
    assert outlet.answer == b"\x20\x02\0\x05"
    assert not outlet.accepted
    assert not registry.sessions


async def test_half_a_connect_is_none(registry: Registry) -> None:
    # MQTTFixedHeader.from_stream and what follows it wait for the rest; here there is none to come.
    whole = connect_packet(A, registry.proof)
    for have in range(len(whole)):
        outlet = Outlet(PEER)
        with contextlib.suppress(Exception):
            async with asyncio.timeout(2):
                await registry.serve(Inlet(whole[:have]), outlet)
        assert not outlet.accepted
        assert not registry.sessions


def _with_proof(connect: bytes, proof: bytes) -> bytes:
    """The same CONNECT with the right proof in it, so that it fails for its other fault."""
    if raw.text("PROOF") not in connect:
        return connect
    body = connect[2:].replace(raw.text("PROOF"), raw.text(proof))
    return raw.packet(connect[0], body)


async def test_nothing_is_broadcast(registry: Registry) -> None:
    # Broker._run_broadcast walks every filter for each message and has no bound.
    with pytest.raises(GateError):
        await registry.internal_message_broadcast("pat/1/x/dn/job/1", b"")


async def test_a_session_that_is_still_live_is_not_taken_over(registry: Registry) -> None:
    first = await opened(registry, A)
    second = Link(registry, A, PEER)
    with pytest.raises(GateError):
        await second.connect()
    second.close()
    assert set(registry.sessions) == {A}
    assert await first.subscribe([f"pat/1/{A}/dn/#"]) == [0]
    first.close()
    assert not registry.sessions
    for question in (first.subscribe([f"pat/1/{A}/dn/#"]), first.connect()):
        with pytest.raises(GateError):
            await question
    assert not registry.sessions
    assert not registry.subscriptions


@pytest.mark.parametrize("goodbye", ["closed", "cancelled", "both"])
@pytest.mark.parametrize("ticks", range(8))
async def test_a_goodbye_at_any_moment(registry: Registry, ticks: int, goodbye: str) -> None:
    """The plugin is asked in a task of its own, and meanwhile a device may be gone."""
    link = Link(registry, A, PEER)

    async def life() -> None:
        await link.connect()
        await link.subscribe([f"pat/1/{A}/dn/#", f"pat/1/{A}/dn/job/1"])

    task = asyncio.create_task(life())
    for _ in range(ticks):
        await asyncio.sleep(0)
    if goodbye != "closed":
        task.cancel()
    if goodbye != "cancelled":
        link.close()
    await asyncio.wait((task,), timeout=2)
    assert task.cancelled() or isinstance(task.exception(), GateError | None)
    link.close()
    await asyncio.sleep(0.01)
    assert not registry.sessions
    assert not registry.subscriptions
    assert not registry._filters


# --- no start without -------------------------------------------------------------------------


class Bare(Registry):
    """A registry whose configuration a careless change has replaced."""

    settings: BrokerConfig

    def configuration(self) -> BrokerConfig:
        return self.settings


EXTERNAL = ListenerConfig(type=ListenerType.EXTERNAL, bind="gate")
PROOF = {plugin.PATH: {"proof": "x" * 40}}
ANONYMOUS = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}


@pytest.mark.parametrize(
    "settings",
    [
        BrokerConfig(listeners={LISTENER: EXTERNAL}, plugins={}),
        BrokerConfig(listeners={LISTENER: EXTERNAL}, plugins=ANONYMOUS),
        BrokerConfig(listeners={LISTENER: EXTERNAL}, plugins=PROOF | ANONYMOUS),
        BrokerConfig(
            listeners={
                LISTENER: EXTERNAL,
                "open": ListenerConfig(type=ListenerType.WS, bind="127.0.0.1:0"),
            },
            plugins=PROOF,
        ),
    ],
)
async def test_the_broker_refuses_to_start_without_our_plugin_alone(
    settings: BrokerConfig,
) -> None:
    # Broker._topic_filtering and Broker._authenticate allow whatever no plugin forbids.
    class Careless(Bare):
        pass

    Careless.settings = settings
    with pytest.raises(NotStarted):
        await Careless().start()


async def test_another_release_of_amqtt_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.session.amqtt.__version__", "0.12.2")
    with pytest.raises(NotStarted, match=r"0\.12\.2"):
        await Registry().start()


async def test_a_plugin_without_its_proof_is_refused() -> None:
    class Careless(Bare):
        settings = BrokerConfig(listeners={LISTENER: EXTERNAL}, plugins={plugin.PATH: {}})

    with pytest.raises(Exception, match="Plugin init failed"):
        Careless()


# --- cost -------------------------------------------------------------------------------------


class Counting(dict[str, Any]):
    """Counts how often the whole of it is walked."""

    walks = 0

    def __iter__(self) -> Iterator[str]:
        Counting.walks += 1
        return super().__iter__()

    def items(self) -> Any:
        Counting.walks += 1
        return super().items()

    def values(self) -> Any:
        Counting.walks += 1
        return super().values()

    def __repr__(self) -> str:
        Counting.walks += 1
        return "…"


async def test_a_connect_costs_the_same_however_many_devices_there_are(registry: Registry) -> None:
    # Broker._handle_client_session, ._client_message_loop, ._del_all_subscriptions and
    # ._session_monitor each walk every session or every subscription of the broker.
    registry._subscriptions = Counting(registry._subscriptions)
    registry._sessions = Counting(registry._sessions)
    Counting.walks = 0
    link = await opened(registry, A)
    assert await link.subscribe([f"pat/1/{A}/dn/#", f"pat/1/{A}/dn/job/1"]) == [0, 0]
    link.unsubscribe([f"pat/1/{A}/dn/job/1"])
    link.close()
    assert not registry.subscriptions
    assert Counting.walks == 0


def test_the_pinned_methods_are_still_there() -> None:
    """What Registry replaces must exist under it, or the pin has moved."""
    for name in (
        "_handle_client_session",
        "_delete_session",
        "_del_subscription",
        "_del_all_subscriptions",
        "_publish_retained_messages_for_subscription",
        "_session_monitor",
        "_broadcast_loop",
        "_broadcast_message",
    ):
        assert name in vars(amqtt.broker.Broker), name
        assert name in vars(Registry), name
