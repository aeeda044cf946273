"""From *Request* to the agent holding the message (R-CON-4), beside the poll that it replaces.

200 requests over the API of a portal process, to one of 12 connected devices each. One clock starts
before the HTTP request is written (then come sign-in, door and checks), the other when the service
is called (then the transaction with its fsync, the gate, TLS); both stop when the device has the
whole MQTT message. Each device confirms what it gets and each session is ended, as in life. The
poll is run afterwards in the same process, which takes a minute.
"""

import asyncio
import hashlib
import json
import ssl
import time
from dataclasses import dataclass
from typing import Any

import uvloop

from agent.wire import messages, topics
from agent.wire.messages import Accepted, AccessRequest, End, Heartbeat
from tests.bench import Goal, Row, _poll
from tests.bench._process import portal
from tests.broker.raw import Raw, publish

REQUESTS = 200
WARM_UP = 20
DEVICES = 12
PAUSE_S = 0.03  # people do not ask back to back; the device's confirmation commits meanwhile
P99 = Goal(floor=10.0, aim=10.0, less=True)  # ms


class Agent:
    """A device that holds what it is sent, says so, and sends heartbeats."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.held: dict[str, float] = {}  # session -> perf_counter of its request's arrival
        self.arrived = asyncio.Event()
        self._seq = 0

    async def run(self, port: int, context: ssl.SSLContext, ready: asyncio.Event) -> None:
        raw = await Raw.open(port, None, None, context=context)  # type: ignore[arg-type]
        async with raw:
            await raw.live(self.device)
            ready.set()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._beat(raw))
                while True:
                    first, body = await raw.packet(wait_s=600)
                    if first == 0x30:
                        self._take(raw, body)

    def _take(self, raw: Raw, body: bytes) -> None:
        at = time.perf_counter()
        size = int.from_bytes(body[:2], "big")
        topic = topics.parse(body[2 : 2 + size].decode())
        payload = body[2 + size :]
        if topic is None or topic.type not in (AccessRequest.TYPE, End.TYPE):
            return
        session = json.loads(payload)["session"]
        if topic.type == AccessRequest.TYPE:
            self.held.setdefault(session, at)
            self.arrived.set()
        self._seq += 1
        accepted = Accepted(
            at=0, boot="b" * 32, uptime_ms=0, outbox="a" * 32, seq=self._seq,
            of="end" if topic.type == End.TYPE else "access-request", ref=session,
            digest=hashlib.sha256(payload).hexdigest(),
        )  # fmt: skip
        self._send(raw, accepted, first=0x32, id=self._seq % 60_000 + 1)

    async def _beat(self, raw: Raw) -> None:
        while True:
            beat = Heartbeat(
                at=0,
                boot="b" * 32,
                uptime_ms=0,
                state="idle",
                outbox_depth=0,
                rtt_ms=None,  # type: ignore[arg-type]
            )
            self._send(raw, beat, first=0x30)
            await asyncio.sleep(10)

    def _send(self, raw: Raw, message: Any, *, first: int, id: int = 1) -> None:
        topic = topics.up(self.device, message.TYPE, message.VERSION)
        raw.send(publish(topic, messages.encode(message), first=first, id=id))


class Api:
    """The least of an HTTP client, on one connection: its own time is in what is measured."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: str
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._token = token

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        data = json.dumps(body).encode()
        head = (
            f"POST /api/v1/{path} HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: Bearer {self._token}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\n\r\n"
        )
        self._writer.write(head.encode() + data)
        async with asyncio.timeout(30):
            answer = await self._reader.readuntil(b"\r\n\r\n")
            assert answer.split(b" ", 2)[1] in (b"200", b"201"), answer
            [length] = [
                int(line.split(b":")[1])
                for line in answer.split(b"\r\n")
                if line.lower().startswith(b"content-length")
            ]
            found: dict[str, Any] = json.loads(await self._reader.readexactly(length))
            return found


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds on the clock that all processes share."""

    session: str
    asked: float  # before the HTTP request is written
    held: float  # the device has the whole message


async def _measure(portal: dict[str, Any]) -> list[Times]:
    """One of each request, the warm-up left out."""
    agents = [Agent(each["device"]) for each in portal["devices"]]
    async with asyncio.TaskGroup() as group:
        tasks = []
        for agent, each in zip(agents, portal["devices"], strict=True):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(cadata=portal["server_ca"])
            context.set_alpn_protocols(["mqtt"])
            context.load_cert_chain(each["certificate"], each["key"])
            ready = asyncio.Event()
            tasks.append(group.create_task(agent.run(portal["gate"], context, ready)))
            await ready.wait()
        reader, writer = await asyncio.open_connection("127.0.0.1", portal["web"])
        api = Api(reader, writer, portal["token"])
        times = [
            await _one(api, agents[number % len(agents)]) for number in range(WARM_UP + REQUESTS)
        ]
        writer.close()
        for task in tasks:
            task.cancel()
    return times[WARM_UP:]


async def _one(api: Api, agent: Agent) -> Times:
    body = {
        "device": agent.device, "level": "os", "services": ["ssh"], "reason": "repair",
        "ticket": "T-1", "note": "", "life_s": 1800,
    }  # fmt: skip
    agent.arrived.clear()
    asked = time.perf_counter()
    session = (await api.post("access/sessions/", body))["session"]
    async with asyncio.timeout(30):
        while session not in agent.held:
            agent.arrived.clear()
            await agent.arrived.wait()
    await api.post(f"access/sessions/{session}/end/", {})
    await asyncio.sleep(PAUSE_S)
    return Times(session, asked, agent.held.pop(session))


def run() -> list[Row]:
    with portal(DEVICES) as process:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            times = runner.run(_measure(process.found))
        served = process.end()
    whole = [each.held - each.asked for each in times]
    inside = [each.held - served[each.session] for each in times]
    polled = _p50_p99(asyncio.run(_poll.latencies((f"poll-{n}" for n in range(DEVICES)), REQUESTS)))
    return [
        *_rows("HTTP request to agent", _p50_p99(whole), polled),
        *_rows("service call to agent", _p50_p99(inside), polled),
    ]


def _p50_p99(seconds: list[float]) -> tuple[float, float]:
    """Both in milliseconds."""
    ordered = sorted(each * 1000 for each in seconds)
    return ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]


def _rows(what: str, ours: tuple[float, float], polled: tuple[float, float]) -> list[Row]:
    peer, note = f"poll every {_poll.EVERY_S:.0f} s", f"{REQUESTS} on {DEVICES} devices"
    return [
        Row(f"{what}, p50", ours[0], "ms", peer, polled[0], note),
        Row(f"{what}, p99", ours[1], "ms", peer, polled[1], note, P99),
    ]
