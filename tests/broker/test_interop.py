"""MQTT 3.1.1 as other people's clients speak it: paho against the gate, case by case.

The cases are those that the Eclipse Paho project asks of a server. Each is kept as far as an
injector needs it, and what is refused on purpose is refused cleanly: with the code that the
standard has for it, or by closing (docs/protocol.md, "What of MQTT is refused").
Requirements: R-CON-6, R-CON-8.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

import paho.mqtt.client as mqtt
import pytest

from agent.wire import carrier
from broker.errors import Reason
from tests.broker.conftest import A, Running

WAIT_S = 5.0
EVENT = f"pat/1/{A}/up/event/1"
DOWN = f"pat/1/{A}/dn"
Transport = Literal["tcp", "websockets"]


class Client:
    """paho, with what it was told written down."""

    def __init__(self, running: Running, *, transport: Transport = "tcp", **options: Any) -> None:
        options.setdefault("client_id", A)
        self.paho = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            transport=transport,
            reconnect_on_failure=False,
            **options,
        )
        alpn = carrier.WEBSOCKET if transport == "websockets" else carrier.RAW
        context = running.authority.client_context(running.identities[A], alpn=alpn)
        self.paho.tls_set_context(context)
        self._port = running.gate.port
        self.connects: list[tuple[int, bool]] = []  # CONNACK's code, session present
        self.grants: list[list[int]] = []
        self.messages: list[tuple[str, bytes, int, bool]] = []
        self.gone = 0
        self._changed = threading.Condition()
        self.paho.on_connect = self._on_connect
        self.paho.on_subscribe = self._on_subscribe
        self.paho.on_message = self._on_message
        self.paho.on_disconnect = self._on_disconnect

    def _on_connect(self, _c: Any, _u: Any, flags: Any, code: Any, _p: Any) -> None:
        self._note(lambda: self.connects.append((code.value, flags.session_present)))

    def _on_subscribe(self, _c: Any, _u: Any, _m: Any, codes: Any, _p: Any) -> None:
        self._note(lambda: self.grants.append([code.value for code in codes]))

    def _on_message(self, _c: Any, _u: Any, message: mqtt.MQTTMessage) -> None:
        got = (message.topic, message.payload, message.qos, message.retain)
        self._note(lambda: self.messages.append(got))

    def _on_disconnect(self, *_: Any) -> None:
        def left() -> None:
            self.gone += 1

        self._note(left)

    def _note(self, what: Callable[[], None]) -> None:
        with self._changed:
            what()
            self._changed.notify_all()

    async def until(self, condition: Callable[[], Any]) -> None:
        def wait() -> bool:
            with self._changed:
                return bool(self._changed.wait_for(condition, WAIT_S))

        assert await asyncio.to_thread(wait), (self.connects, self.grants, self.messages, self.gone)

    async def connect(self, *, keepalive: int = 10) -> None:
        """Connect, or connect again; returns with CONNACK, or when the gate has closed."""
        before = len(self.connects), self.gone
        self.paho.connect_async("localhost", self._port, keepalive)
        self.paho.loop_start()
        await self.until(lambda: (len(self.connects), self.gone) != before)

    async def subscribe(self, *filters: str, qos: int = 0) -> list[int]:
        before = len(self.grants)
        self.paho.subscribe([(each, qos) for each in filters])
        await self.until(lambda: len(self.grants) > before)
        return self.grants[-1]

    async def stop(self) -> None:
        """Neither send nor receive from now on."""
        await asyncio.to_thread(self.paho.loop_stop)
        self.paho._reset_sockets(sockpair_only=True)  # its next loop would leak them

    async def leave(self) -> None:
        self.paho.disconnect()
        await self.stop()


@asynccontextmanager
async def client(running: Running, **options: Any) -> AsyncIterator[Client]:
    made = Client(running, **options)
    try:
        yield made
    finally:
        await made.leave()


# --- kept ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["tcp", "websockets"])
async def test_basic(running: Running, transport: Transport) -> None:
    """Come, go, come again; QoS 0 and 1 up in order, and down."""
    async with client(running, transport=transport) as device:
        await device.connect()
        await device.leave()
        await running.handler.told("disconnected", A, Reason.DISCONNECTED)
        await device.connect()
        assert device.connects == [(0, False), (0, False)]
        assert await device.subscribe(f"{DOWN}/#") == [0]
        device.paho.publish(EVENT, b"qos 0", qos=0)
        info = device.paho.publish(EVENT, b"qos 1", qos=1)
        await asyncio.to_thread(info.wait_for_publish, WAIT_S)
        taken = [(each.payload, each.qos) for each in running.handler.deliveries]
        assert taken == [(b"qos 0", 0), (b"qos 1", 1)]
        assert running.gate.publish(f"{DOWN}/end/1", b"down")
        await device.until(lambda: device.messages)
        assert device.messages == [(f"{DOWN}/end/1", b"down", 0, False)]


async def test_overlapping_subscriptions_give_one_message(running: Running) -> None:
    async with client(running) as device:
        await device.connect()
        assert await device.subscribe(f"{DOWN}/#", f"{DOWN}/job/1") == [0, 0]
        assert running.gate.publish(f"{DOWN}/job/1", b"once")
        assert running.gate.publish(f"{DOWN}/end/1", b"last")
        await device.until(lambda: len(device.messages) >= 2)
        assert [message[1] for message in device.messages] == [b"once", b"last"]


async def test_unsubscribe(running: Running) -> None:
    async with client(running) as device:
        await device.connect()
        await device.subscribe(*(f"{DOWN}/{kind}/1" for kind in ("job", "end", "rate")))
        device.paho.unsubscribe(f"{DOWN}/job/1")
        await device.subscribe(f"{DOWN}/hello/1")  # its answer comes behind the other's
        sent = {
            k: running.gate.publish(f"{DOWN}/{k}/1", k.encode()) for k in ("job", "end", "rate")
        }
        assert sent == {"job": False, "end": True, "rate": True}
        await device.until(lambda: len(device.messages) == 2)
        assert [message[1] for message in device.messages] == [b"end", b"rate"]


async def test_keepalive(running: Running) -> None:
    """A client that neither sends nor pings is let go; here its loop stands still."""
    async with client(running) as device:
        await device.connect(keepalive=1)
        await device.stop()
        await running.handler.told("disconnected", A, Reason.SILENT)


async def test_an_unacknowledged_message_is_taken_again(running: Running) -> None:
    """Redelivery is the device's part: it sends again what was not decided, marked DUP."""
    running.handler.acks = False
    async with client(running) as device:
        await device.connect()
        info = device.paho.publish(EVENT, b"once more", qos=1)
        await running.handler.until(lambda: len(running.handler.deliveries) == 1)
        running.gate.kick(A)
        await device.until(lambda: device.gone == 1)
        await device.stop()
        running.handler.acks = True
        await device.connect()
        await asyncio.to_thread(info.wait_for_publish, WAIT_S)
        assert info.is_published()
        taken = [each.payload for each in running.handler.deliveries]
        assert taken == [b"once more", b"once more"]


async def test_a_failed_subscription_says_so(running: Running) -> None:
    async with client(running) as device:
        await device.connect()
        assert await device.subscribe("test/nosubscribe", f"{DOWN}/#", "#", "+/+") == [
            128, 0, 128, 128,
        ]  # fmt: skip
        assert not device.gone


# --- refused on purpose -------------------------------------------------------------------------


async def test_persistent_sessions_are_not_kept(running: Running) -> None:
    """A session may be asked for and is always new: what a device must know, the portal keeps."""
    async with client(running, clean_session=False) as device:
        await device.connect()
        assert await device.subscribe(f"{DOWN}/#", qos=1) == [0]  # at QoS 0
        await device.leave()
        await running.handler.told("disconnected", A)
        assert not running.gate.publish(f"{DOWN}/job/1", b"while away")
        await device.connect()
        assert device.connects == [(0, False), (0, False)]  # no session present
        assert not running.gate.publish(f"{DOWN}/job/1", b"not subscribed yet")
        await device.subscribe(f"{DOWN}/#")
        assert running.gate.publish(f"{DOWN}/job/1", b"now")
        await device.until(lambda: device.messages)
        assert [message[1] for message in device.messages] == [b"now"]


@pytest.mark.parametrize(
    ("topic", "options", "reason"),
    [
        (EVENT, {"qos": 2}, Reason.QOS),
        (EVENT, {"qos": 0, "retain": True}, Reason.RETAINED),
        (EVENT, {"qos": 1, "retain": True}, Reason.RETAINED),
        (f"${EVENT}", {"qos": 1}, Reason.TOPIC),
        ("TopicA/B", {"qos": 0}, Reason.TOPIC),
        (f"{DOWN}/job/1", {"qos": 1}, Reason.TOPIC),
    ],
)
async def test_a_refused_publish_ends_the_connection(
    running: Running, topic: str, options: dict[str, Any], reason: Reason
) -> None:
    async with client(running) as device:
        await device.connect()
        device.paho.publish(topic, b"x", **options)
        await device.until(lambda: device.gone)
        await running.handler.told("refused", A, reason)
    assert not running.handler.deliveries


async def test_a_will_is_refused_with_its_code(running: Running) -> None:
    made = Client(running)
    made.paho.will_set(EVENT, b"gone", qos=1)
    await made.connect()
    assert made.connects == [(135, False)]  # CONNACK 5, "not authorised" in paho's numbers
    await running.handler.told("refused", A, Reason.WILL)
    await made.leave()


@pytest.mark.parametrize(
    ("options", "code", "reason"),
    [
        ({"client_id": "myclientid"}, 133, Reason.CLIENT_ID),  # CONNACK 2
        ({"client_id": "myclientid", "clean_session": False}, 133, Reason.CLIENT_ID),
        ({"protocol": mqtt.MQTTv31}, 132, Reason.PROTOCOL_LEVEL),  # CONNACK 1
    ],
)
async def test_a_refused_connect_is_refused_with_its_code(
    running: Running, options: dict[str, Any], code: int, reason: Reason
) -> None:
    async with client(running, **options) as device:
        await device.connect()
        assert device.connects == [(code, False)]
        await running.handler.told("refused", A, reason)


async def test_no_name_is_given_to_a_client_without_one(running: Running) -> None:
    """paho tells nobody of CONNACK 2 here: it would try again under a name of its own making."""
    async with client(running, client_id="") as device:
        await device.connect()
        assert (device.connects, device.gone) == ([], 1)
        await running.handler.told("refused", A, Reason.CLIENT_ID)


async def test_mqtt_5_is_refused(running: Running) -> None:
    """Its client cannot read a CONNACK of 3.1.1, and sees the end of the connection."""
    async with client(running, protocol=mqtt.MQTTv5) as device:
        await device.connect()
        await running.handler.told("refused", A, Reason.PROTOCOL_LEVEL)
    assert not running.handler.has("connected")


async def test_a_second_connect_ends_the_connection(running: Running) -> None:
    async with client(running) as device:
        await device.connect()
        device.paho._send_connect(10)
        await device.until(lambda: device.gone)
        await running.handler.told("disconnected", A, Reason.SECOND_CONNECT)
