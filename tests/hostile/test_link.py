"""The link, the identity, and everything that may come down it (R-CON-1, R-CON-5, R-CON-8)."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from agent.errors import ControlError
from agent.wire import messages
from agent.wire.catalogue import JobKind, Level
from agent.wire.messages import AccessServer, Certificate, Job, Servers
from broker.errors import Reason
from fleet.core import clock
from fleet.enrolment import ca
from tests.broker.raw import Raw
from tests.fleet.mqtt.test_server import in_thread, trusting
from tests.hostile.stage import Stage, eventually
from tests.tls import Authority
from tests.whole import PIN

pytestmark = pytest.mark.django_db(transaction=True)


def _files(folder: Path, key: ec.EllipticCurvePrivateKey, *pems: bytes) -> tuple[Path, Path]:
    folder.mkdir()
    (folder / "chain.pem").write_bytes(b"".join(pems))
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "key.pem").write_bytes(pem)
    return folder / "chain.pem", folder / "key.pem"


async def test_a_certificate_for_the_attackers_key(stage: Stage, tmp_path: Path) -> None:
    """The device authority certifies a key of the attacker's under the injector's name: it takes
    over the MQTT session in the middle of alice's shell, and offers the certificate down."""
    line = await stage.let_in("os", "ssh")
    await stage.type(line, "ssh", b"true before\n")
    device, key = stage.injector.id, ec.generate_private_key(ec.SECP256R1())
    leaf = await in_thread(lambda: ca.issue_device(device, key.public_key(), now=clock.now()))
    issuer = (await in_thread(lambda: ca.load("device-ca"))).certificate
    chain = [each.public_bytes(Encoding.DER) for each in (leaf, issuer)]
    assert await stage.ignored(stage.send(Certificate(certificates=chain))) == "peer"

    pems = (each.public_bytes(Encoding.PEM) for each in (leaf, issuer))
    context = trusting()
    context.set_alpn_protocols(["mqtt"])
    context.load_cert_chain(*_files(tmp_path / "thief", key, *pems))
    gate = stage.here.running.gate
    assert gate is not None
    thief = await Raw.open(gate.port, None, None, context=context)  # type: ignore[arg-type]
    async with await thief.live(device):
        line.type(b"true during\n")  # goes to the thief, sealed
        topic, frame = await thief.message()
        while not topic.endswith("/dn/s"):
            topic, frame = await thief.message()
        assert b"true" not in frame
    stage.typed["ssh"] += b"true during\n"
    await eventually(lambda: line.up and device in gate.connections)
    line.client.mux.resume()
    line.client.pump()
    await eventually(lambda: bytes(stage.doors["ssh"].heard) == stage.typed["ssh"])
    stage.stopped.append("it gets what the portal has already; the injector keeps its own key")


@asynccontextmanager
async def _server(context: ssl.SSLContext) -> AsyncIterator[tuple[int, list[bytes]]]:
    """An access server that takes what comes: its port, and what it was told."""
    heard: list[bytes] = []

    async def visit(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if data := await reader.read(64):  # nothing: whoever came left at the sight of it
            heard.append(data)
        writer.close()

    server = await asyncio.start_server(visit, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1], heard
    finally:
        server.close()


async def test_an_access_server_of_the_attackers(stage: Stage, tmp_path: Path) -> None:
    """The injector is sent to an access server outside the vendor's authority, and to one inside
    it, which the attacker has as well; and comes back."""
    foreign = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    foreign.load_cert_chain(*Authority("foreign").server.write(tmp_path, "foreign"))
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pair = await in_thread(lambda: ca.server_pair(hosts=["localhost"], now=clock.now()))
    pem = pair.certificate.public_bytes(Encoding.PEM)
    own.load_cert_chain(*_files(tmp_path / "own", pair.key, pem))
    gate = stage.here.running.gate
    assert gate is not None
    async with _server(foreign) as (wrong, told_wrong), _server(own) as (right, told):
        stage.send(
            Servers(servers=[AccessServer(host="localhost", port=p) for p in (wrong, right)])
        )
        await stage.caught_up()
        gate.kick(stage.injector.id, Reason.KICKED)
        await eventually(lambda: told, 60)
        assert told_wrong == []  # no byte to whom the anchor does not vouch for
        assert told[0][:1] == b"\x10"  # CONNECT: and that is all there is to have
        await eventually(lambda: stage.injector.id in gate.connections, 60)
    stage.stopped.append(
        "the server authority of the provisioning bundle; sealed and signed beyond"
    )


async def test_messages_that_want_something_run(stage: Stage) -> None:
    """A job that runs a command, a job with parameters that are paths, a release, a driver, and a
    policy; then a true job, whose bundle the attacker may have."""
    key = X25519PrivateKey.generate().public_key().public_bytes_raw()
    honest = Job(
        execution="a" * 32, kind=JobKind.COLLECT_DIAGNOSTICS,
        not_after=clock.to_ms(clock.now()) + 60_000, key=key,
    )  # fmt: skip
    true = json.loads(messages.encode(honest))
    tries = [
        ("job", true | {"kind": "run"}),
        ("job", true | {"command": "/bin/sh -i"}),
        ("job", true | {"hours": "$(reboot)"}),
        ("job", true | {"execution": "../../etc/passwd"}),
        ("install", {"url": "https://example.org/driver.py"}),
        ("policy", {"os": "allow", "remote": True}),
        ("driver", {"driver": "os:system"}),
    ]
    for type, content in tries:
        assert await stage.ignored(stage.say(type, content)) in ("unknown_type", "malformed")
    assert (await stage.injector.command("policy"))["os"] == "ask"
    stage.say("job", messages.encode(honest))  # what is wrong with those above is what they want
    await eventually(lambda: any(e["action"] == "job:run" for e in stage.injector.entries()))
    kept = {path.name for path in stage.injector.state.rglob("*") if path.suffix in (".py", ".sh")}
    assert kept == set()
    stage.stopped.append("a closed schema with one kind of job; nothing in it names what to run")


async def test_a_panel_that_is_tired_out(stage: Stage) -> None:
    """A thousand requests for a shell, in the names of everybody."""
    here = stage.here
    before = len(stage.injector.entries())
    for _ in range(250):
        for who in ("mallory", here.bob.member().id, here.alice.member().id, "nobody"):
            stage.send(stage.request(who, Level.OS, "ssh"))
        await asyncio.sleep(0)
    await asyncio.sleep(1)
    status = await stage.injector.command("status")
    assert (status["sessions"], status["sessions_waiting"]) == (0, 1)  # nobody is asked to approve
    with pytest.raises(ControlError):
        await stage.injector.command("approve", pin=PIN)
    made = [entry["action"] for entry in stage.injector.entries()[before:]]
    decided = sum(action.startswith("session:") for action in made)
    assert 0 < decided <= 121  # in a minute, whatever comes
    written = len(made)
    assert written <= 4 * 120  # with the portal's refusals of what the injector said of them
    stage.stopped.append(
        f"one at a time and 120 a minute: {written} entries, no question to anyone"
    )


async def test_ends_and_what_was_ended(stage: Stage) -> None:
    """Ends in alice's live session, then its request and its frames again: it stays closed."""
    line = await stage.let_in("os", "ssh")
    await stage.type(line, "ssh", b"true\n")
    session = line.session.hex()
    for reason in ("ended_by_portal", "ended_by_hospital", "unreachable"):
        stage.say("end", {"session": session, "reason": reason})
    await eventually(lambda: stage.injector.chain(session)[-1]["reason"] == "ended_by_portal")
    for frame in line.down:
        stage.inject(frame)
    stage.say("access-request", bytes((await stage.here.row(session)).request))
    await stage.caught_up()
    assert (await stage.injector.command("status"))["sessions"] == 0
    assert json.dumps(stage.injector.chain(session)).count("session:challenge") == 1
    stage.stopped.append("the portal may end a session; what it ended does not begin again")
