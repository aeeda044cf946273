"""What DESIGN measured of amqtt 0.12.1 ("must not meet the network"), each behind the gate.

| measured | its function | closed by |
|---|---|---|
| another certificate, or none, accepted as a device with a stored session | `Broker._authenticate` | `test_attacks_identity`: another device's client id, without a certificate |
| before authentication anyone wipes subscriptions or evicts | `Broker._initialize_client_session` | `test_attacks_identity`: another device's client id while it is online |
| wills pass the ACL | `Broker._handle_disconnect` | `test_attacks_identity`: a will |
| retained messages pass the ACL | `Broker.retain_message` | `test_attacks_traffic`: a retained message |
| with no ACL plugin everything is allowed | `Broker._topic_filtering` | `test_session`: the broker refuses to start without our plugin |
| no bound on queues | `StreamWriterAdapter.write`, `Broker._run_broadcast` | `test_neighbours`: a reader that stops; `test_attacks_traffic`: never reads the answers |
| no bound on packets | `MQTTFixedHeader.from_stream` | `test_attacks_traffic`: a publish of 256 megabytes; `test_cost`: memory |
| no bound on the wait for CONNECT | `BrokerProtocolHandler.init_from_connect` | `test_attacks_identity`: no connect or a slow one |
| keepalive not enforced | `ProtocolHandler.handle_read_timeout` | `test_attacks_traffic`: silence beyond the keepalive |
| a clean takeover leaves the old socket live | `Broker._delete_session` | `test_gate`: takeover closes the old socket |
| QoS 1 dropped on disconnect | `Broker._client_message_loop` | here |
| down-going QoS 1 times out though delivered | `ProtocolHandler._handle_qos1_message_flow` | here |
| the broadcast walks every filter | `Broker._run_broadcast` | `test_session`: nothing is broadcast |
| and loses messages when another client subscribes | `Broker._run_broadcast` | here |
| SUBSCRIBE costs 13 ms at 5,000, a mass drop 9 s | `Broker._client_message_loop`, `._session_monitor` | `test_cost`: a connect costs no more |

Requirements: R-CON-4, R-CON-8.
"""  # noqa: E501

import asyncio

from tests.broker import raw
from tests.broker.conftest import A, B, Running

EVENT = f"pat/1/{A}/up/event/1"


async def test_one_that_subscribes_while_messages_go_down_costs_none(running: Running) -> None:
    # Broker._run_broadcast walks the dict of filters and awaits meanwhile: a client that subscribes
    # then ends the walk with RuntimeError, and the message is lost.
    topic = f"pat/1/{A}/dn/end/1"
    async with await running.live(A) as device, await running.live(B) as other:
        for number in range(200):
            other.send(raw.subscribe(f"pat/1/{B}/dn/job/{number + 1}"))
            other.send(raw.unsubscribe(f"pat/1/{B}/dn/job/{number + 1}"))
            assert running.gate.publish(topic, b"%d" % number)
            await asyncio.sleep(0)
        got = [await device.message() for _ in range(200)]
    assert got == [(topic, b"%d" % number) for number in range(200)]


async def test_what_came_before_the_goodbye_is_handed_on(running: Running) -> None:
    # Broker._client_message_loop returns at the end of a connection and leaves QoS 1 messages in
    # its queue; ProtocolHandler.stop cancels what waits for them.
    for goodbye in (raw.DISCONNECT, b""):
        device = await running.live(A)
        packets = [raw.publish(EVENT, b"%d" % n, first=0x32, id=n) for n in range(1, 51)]
        device.send(b"".join(packets) + goodbye)
        await device.writer.drain()
        if not goodbye:
            device.writer.transport.abort()
        await running.handler.told("disconnected", A)
        await device.abort()
        taken = [delivery.payload for delivery in running.handler.deliveries]
        assert taken == [b"%d" % n for n in range(1, 51)]
        running.handler.deliveries.clear()
        running.handler.log.clear()


async def test_nothing_goes_down_at_qos_1(running: Running) -> None:
    # ProtocolHandler._handle_qos1_message_flow waits for a PUBACK under a number it may have given
    # to two messages, and calls a message that was delivered timed out. Here the grant is QoS 0.
    async with await running.live(A, subscribed=False) as device:
        device.send(raw.subscribe(f"pat/1/{A}/dn/#", qos=2))
        assert await device.packet() == (0x90, b"\0\x01\0")
        assert running.gate.publish(f"pat/1/{A}/dn/end/1", b"once")
        assert await device.packet() == (0x30, raw.text(f"pat/1/{A}/dn/end/1") + b"once")
        assert await device.quiet()
