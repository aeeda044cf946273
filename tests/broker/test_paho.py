"""The client of this project, paho, against the running gate: what the agent will do.

Requirements: R-CON-4, R-CON-6.
"""

import asyncio
import threading
import time
from typing import Literal

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.reasoncodes import ReasonCode

from agent.wire import carrier
from broker.errors import Reason
from tests.broker.conftest import A, B, Running
from tests.tls import Issued

WAIT_S = 5.0
Transport = Literal["tcp", "websockets"]


class Paho:
    """A paho client in a thread of its own."""

    def __init__(
        self, running: Running, identity: Issued, client_id: str, transport: Transport = "tcp"
    ) -> None:
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=client_id,
            reconnect_on_failure=False,
            transport=transport,
        )
        alpn = carrier.WEBSOCKET if transport == "websockets" else carrier.RAW
        self.client.tls_set_context(running.authority.client_context(identity, alpn=alpn))
        self.port = running.gate.port
        self.codes: list[ReasonCode] = []
        self.granted: list[ReasonCode] = []
        self.messages: list[mqtt.MQTTMessage] = []
        self.connected = threading.Event()
        self.subscribed = threading.Event()
        self.received = threading.Event()
        self.gone = threading.Event()
        self.client.on_connect = self._on_connect
        self.client.on_subscribe = self._on_subscribe
        self.client.on_message = self._on_message
        self.client.on_disconnect = lambda *_: self.gone.set()

    def _on_connect(self, _c: object, _u: object, _f: object, code: ReasonCode, _p: object) -> None:
        self.codes.append(code)
        self.connected.set()

    def _on_subscribe(
        self, _c: object, _u: object, _m: object, codes: list[ReasonCode], _p: object
    ) -> None:
        self.granted += codes
        self.subscribed.set()

    def _on_message(self, _c: object, _u: object, message: mqtt.MQTTMessage) -> None:
        self.messages.append(message)
        self.received.set()

    async def __aenter__(self) -> "Paho":
        self.client.connect_async("localhost", self.port, keepalive=10)
        self.client.loop_start()
        await self.wait(self.connected)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.client.disconnect()
        await asyncio.to_thread(self.client.loop_stop)

    async def wait(self, event: threading.Event) -> None:
        assert await asyncio.to_thread(event.wait, WAIT_S)


@pytest.mark.parametrize("transport", ["tcp", "websockets"])
async def test_a_day_in_the_life(
    running: Running, identities: dict[str, Issued], transport: Transport
) -> None:
    async with Paho(running, identities[A], A, transport) as device:
        assert not device.codes[0].is_failure
        device.client.subscribe([(f"pat/1/{A}/dn/#", 0), ("#", 0)])
        await device.wait(device.subscribed)
        assert [code.is_failure for code in device.granted] == [False, True]
        for number in range(50):
            info = device.client.publish(f"pat/1/{A}/up/event/1", f"{number}", qos=1)
        await asyncio.to_thread(info.wait_for_publish, WAIT_S)
        device.client.publish(f"pat/1/{A}/up/s", b"f" * 30_000)
        await running.handler.until(lambda: bool(running.handler.frames))
        taken = [delivery.payload for delivery in running.handler.deliveries]
        assert taken == [f"{number}".encode() for number in range(50)]
        began = time.monotonic()
        assert running.gate.publish(f"pat/1/{A}/dn/access-request/1", b"{}")
        await device.wait(device.received)
        assert time.monotonic() - began < 1  # R-CON-4, with a wide margin
        assert device.messages[0].topic == f"pat/1/{A}/dn/access-request/1"
    await running.handler.told("disconnected", A, Reason.DISCONNECTED)


@pytest.mark.parametrize("client_id", [B, "other", "a/#"])
async def test_somebody_else(
    running: Running, identities: dict[str, Issued], client_id: str
) -> None:
    async with Paho(running, identities[A], client_id) as attacker:
        assert attacker.codes[0].is_failure
    await running.handler.told("refused", A, Reason.CLIENT_ID)


async def test_kicked(running: Running, identities: dict[str, Issued]) -> None:
    async with Paho(running, identities[A], A) as device:
        running.gate.kick(A)
        await device.wait(device.gone)
