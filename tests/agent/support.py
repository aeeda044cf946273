"""What tests of the agent share: a state directory, a driver that obeys, a portal at the gate."""

import asyncio
import base64
import contextlib
import datetime as dt
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agent.drivers import DriverError, DriverEvent, Service
from agent.drivers.base import History
from agent.wire import messages, topics
from agent.wire.catalogue import ClinicalState, Level, Metric, ProductLineCode
from agent.wire.messages import Durable, Hello, Message, Up, Welcome
from broker.errors import Reason
from broker.lanes import ConnectionInfo, Delivery
from broker.options import GateOptions, Limits
from broker.server import Gate
from tests.tls import Authority

DEVICE = "device-0001"
TRUST_KEY = Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32)
SERVER_AUDIT_KEY = Ed25519PrivateKey.from_private_bytes(bytes([2]) * 32)


def _text(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def provision(
    folder: Path, authority: Authority, *, port: int = 1, **changes: Any
) -> dict[str, Any]:
    """Place a provisioning bundle; gives what it holds."""
    folder.mkdir(mode=0o700, exist_ok=True)
    bundle = {
        "v": 1,
        "serial": "SN-0001",
        "product_line": "ct-dual",
        "claim": "claim-0001",
        "enrol": {"host": "localhost", "port": port},
        "anchors": {
            "server_ca": _text(authority.server_ca.certificate),
            "device_root": _text(authority.root.certificate),
            "trust_key": _b64(TRUST_KEY),
            "server_audit_key": _b64(SERVER_AUDIT_KEY),
        },
    } | changes
    (folder / "provision.json").write_text(json.dumps(bundle))
    (folder / "driver.json").write_text(
        json.dumps({"driver": "simulator", "services": {"ssh": 1, "console": 2, "web": 3}})
    )
    return bundle


def _b64(key: Ed25519PrivateKey) -> str:
    return base64.b64encode(key.public_key().public_bytes_raw()).decode()


def enrolled(
    folder: Path, authority: Authority, *ports: int, device: str = DEVICE, enrol_port: int = 1
) -> Path:
    """A state directory of an injector that has its identity."""
    provision(folder, authority, port=enrol_port)
    issued = authority.device(device)
    issued.write_key(folder / "device.key")
    (folder / "device.pem").write_bytes(issued.chain_pem)
    servers = [{"host": "localhost", "port": port} for port in ports]
    (folder / "servers.json").write_text(json.dumps(servers))
    return folder


class StubDriver:
    """A driver whose state and events the test sets."""

    product_line = ProductLineCode.CT_DUAL
    software_version = "4.2.0"

    def __init__(self) -> None:
        self.state = ClinicalState.IDLE
        self.pending: list[DriverEvent] = []
        self.faults: list[str] = []
        self.metrics: dict[Metric, float] = {Metric("fan_rpm"): 900.0}

    def advance(self, now_s: float) -> list[DriverEvent]:
        pending, self.pending = self.pending, []
        return pending

    def values(self) -> dict[Metric, float]:
        return dict(self.metrics)

    def conditions(self) -> list[DriverEvent]:
        return []

    def services(self) -> dict[str, Service]:
        return {"ssh": Service(Level.OS, 1), "web": Service(Level.SERVICE, 3)}

    def history(self, hours: int) -> History:
        return History([], [])

    def declare_no_patient(self) -> None:
        self.state = ClinicalState.SERVICE

    def simulate(self, fault: str) -> None:
        if fault != "armed":
            raise DriverError(f"no such part: {fault}")
        self.state = ClinicalState.ARMED


@dataclass
class Portal:
    """The portal's side of the gate: decides on every message, or does not."""

    gate: Gate = field(init=False)
    deciding: bool = True  # False: the database is away
    welcoming: bool = True
    poison: Callable[[Up], messages.RefusalReason | None] = lambda message: None
    seen: dict[tuple[str, int], str] = field(default_factory=dict)  # key: digest
    decided: list[Durable] = field(default_factory=list)
    repeated: int = 0
    now: list[Up] = field(default_factory=list)  # QoS 0, and hello
    frames: list[bytes] = field(default_factory=list)
    connects: int = 0
    disconnects: list[Reason] = field(default_factory=list)
    high: int | None = None  # overrides the mark in the next welcome
    _held: list[Delivery] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    # --- the gate's handler ----------------------------------------------------------------------

    def connected(self, device: str, info: ConnectionInfo) -> None:
        self.connects += 1
        self._changed.set()

    def disconnected(self, device: str, reason: Reason) -> None:
        self.disconnects.append(reason)
        self._held = []
        self._changed.set()

    def refused(self, peer: str, device: str | None, reason: Reason) -> None:
        self.disconnects.append(reason)
        self._changed.set()

    def stream(self, device: str, frame: bytes) -> None:
        self.frames.append(frame)
        self._changed.set()

    def up(self, delivery: Delivery) -> bool:
        if self.deciding:
            self._decide(delivery)
        elif delivery.qos:
            self._held.append(delivery)
        self._changed.set()
        return True

    # --- deciding --------------------------------------------------------------------------------

    def back(self) -> None:
        """The database is back: decide on what was held."""
        self.deciding = True
        held, self._held = self._held, []
        for delivery in held:
            self._decide(delivery)

    def _decide(self, delivery: Delivery) -> None:
        message = messages.decode_up(delivery.type, delivery.version, delivery.payload)
        if isinstance(message, Durable):
            self._durable(delivery, message)
        else:
            self.now.append(message)
        delivery.ack()
        if isinstance(message, Hello) and self.welcoming:
            self.welcome(delivery.device, message)

    def _durable(self, delivery: Delivery, message: Durable) -> None:
        reason = self.poison(message)
        if reason is not None:
            refusal = messages.Refused(outbox=message.outbox, seq=message.seq, reason=reason)
            self.send(refusal, delivery.device)
            return
        key = (message.outbox, message.seq)
        digest = delivery.payload.hex()
        if key in self.seen:
            assert self.seen[key] == digest, "one key, two messages"
            self.repeated += 1
            return
        self.seen[key] = digest
        self.decided.append(message)

    def welcome(self, device: str, hello: Hello) -> None:
        known = [seq for outbox, seq in self.seen if outbox == hello.outbox]
        high = max(known, default=0) if self.high is None else self.high
        self.high = None
        self.send(Welcome(at=hello.at, outbox=hello.outbox, high=high, head=None), device)

    def send(self, message: Message, device: str = DEVICE) -> bool:
        topic = topics.down(device, message.TYPE, message.VERSION)
        return self.gate.publish(topic, messages.encode(message))

    # --- for tests -------------------------------------------------------------------------------

    def of(self, kind: type[Any]) -> list[Any]:
        return [m for m in (*self.decided, *self.now) if isinstance(m, kind)]

    async def until(self, condition: Callable[[], Any], timeout_s: float = 10) -> Any:
        """Wait for something that messages or connections make true."""
        async with asyncio.timeout(timeout_s):
            while not (result := condition()):
                self._changed.clear()
                try:
                    await asyncio.wait_for(self._changed.wait(), 0.05)
                except TimeoutError:
                    continue
            return result


@asynccontextmanager
async def portal(
    folder: Path, authority: Authority, *, port: int = 0, into: Portal | None = None, **limits: Any
) -> AsyncIterator[Portal]:
    """A portal at a real gate on loopback; `into` goes on with one that was stopped."""
    folder.mkdir(exist_ok=True)  # noqa: ASYNC240
    files = authority.write(folder)
    made = into or Portal()
    options = GateOptions(
        host="127.0.0.1",
        port=port,
        certificate=files.server_chain,
        key=files.server_key,
        device_ca=files.device_ca,
        limits=Limits(**limits),
    )
    made.gate = Gate(options, made)
    await made.gate.start()
    try:
        yield made
    finally:
        await made.gate.stop()


async def closed(writer: asyncio.StreamWriter) -> None:
    """Close, and wait until the socket is."""
    writer.close()
    with contextlib.suppress(OSError, ssl.SSLError):
        await writer.wait_closed()


@dataclass
class EnrolmentServer:
    """Answers POST /enrol/v1 over TLS as the portal does, or as an attacker would."""

    authority: Authority
    port: int = 0
    access_port: int = 1
    device: str = DEVICE
    requests: list[dict[str, Any]] = field(default_factory=list)
    answer: Callable[[dict[str, Any]], tuple[int, bytes]] | None = None
    open: int = 0

    def _usual(self, claim: dict[str, Any]) -> tuple[int, bytes]:
        first = self.requests[0]
        if claim["claim"] == first["claim"] and _key_of(claim) != _key_of(first):
            return 409, b'{"error": "claim_used", "detail": "another key"}'
        public = x509.load_pem_x509_csr(claim["csr"].encode()).public_key()
        leaf = leaf_for(self.authority, self.device, public)
        answer = {
            "v": 1,
            "device": self.device,
            "certificates": [_text(leaf), _text(self.authority.intermediate.certificate)],
            "access_servers": [{"host": "localhost", "port": self.access_port}],
        }
        return 200, json.dumps(answer).encode()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.split(b":")[1])
                for line in head.lower().split(b"\r\n")
                if line.startswith(b"content-length:")
            )
            claim = json.loads(await reader.readexactly(length))
            self.requests.append(claim)
            status, body = (self.answer or self._usual)(claim)
            writer.write(
                b"HTTP/1.1 %d X\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"
                % (status, len(body), body)
            )
            await writer.drain()
        finally:
            await closed(writer)
            self.open -= 1

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["EnrolmentServer"]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.server.load(context)
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=context)
        async with server:
            self.port = server.sockets[0].getsockname()[1]
            yield self
        async with asyncio.timeout(5):
            while self.open:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.02)  # a handshake that failed closes its socket a little later


def _key_of(claim: dict[str, Any]) -> bytes:
    public = x509.load_pem_x509_csr(claim["csr"].encode()).public_key()
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def leaf_for(authority: Authority, device: str, public: Any) -> x509.Certificate:
    """A certificate of the device authority for a key that came in a CSR."""
    now = dt.datetime.now(dt.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device)])
    uri = x509.UniformResourceIdentifier(f"spiffe://patency/device/{device}")
    issuer = authority.intermediate
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.certificate.subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)
        .add_extension(x509.SubjectAlternativeName([uri]), False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), False
        )
        .sign(issuer.key, SHA256())
    )
