"""The doctor meets each fault of a network and names it, with and without an agent (R-CON-7)."""

import asyncio
import datetime as dt
import email.utils
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent import enrolment, i18n, identity
from agent.clock import BUILD_DATE_MS
from agent.doctor import checks, report
from agent.doctor.checks import Check, Examination, Said, Verdict, What
from agent.doctor.examination import examine
from agent.errors import StateError
from agent.identity import Server
from agent.network import settings
from agent.network.findings import Code, Finding
from agent.network.journey import AS_ANYBODY
from agent.servers import save
from agent.wire.messages import Hello
from broker.denied import DenyList
from tests.agent.network.relays import (
    Firewall,
    Guillotine,
    HttpProxy,
    answers,
    intercepting,
    serving,
)
from tests.agent.support import DEVICE, EnrolmentServer, Portal, enrolled, portal, provision
from tests.agent.test_runtime import Running, until
from tests.tls import Authority, Issued

AUTHORITY = Authority()
STRANGER = Authority("Hospital Inspection")
DAY = 86400.0


@asynccontextmanager
async def front(
    date: float | None = None, shown: Issued | None = None, refusal: str = ""
) -> AsyncIterator[int]:
    """The portal's own address: HTTPS that says what time it is, and `refusal` to a claim."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    (shown or AUTHORITY.server).load(context)
    context.set_alpn_protocols(AS_ANYBODY)
    says = email.utils.formatdate(time.time() if date is None else date, usegmt=True)
    body = f'{{"error": "{refusal}"}}' if refusal else ""
    status = "403 Forbidden" if refusal else "302 Found"
    head = f"HTTP/1.1 {status}\r\nDate: {says}\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    async with serving(answers(head.encode()), context) as port:
        yield port


@asynccontextmanager
async def hospital(tmp_path: Path, **options: Any) -> AsyncIterator[tuple[Path, Portal]]:
    """An enrolled injector, its gate and its portal's address, all well."""
    async with portal(tmp_path / "gate", AUTHORITY) as served, front(**options) as port:
        yield (
            enrolled(tmp_path / "state", AUTHORITY, served.gate.port, enrol_port=port),
            served,
        )


async def look(state: Path, **options: Any) -> Examination:
    return await asyncio.to_thread(examine, state, **options)


def bad(found: Examination) -> list[Any]:
    return [check.shown.code for check in found.checks if check.verdict is Verdict.BAD]


def noted(found: Examination) -> list[Check]:
    """What is wrong and keeps nothing from working."""
    advice = [check for check in found.checks if check.verdict is Verdict.ADVICE]
    return [check for check in advice if isinstance(check.shown, Finding)]


def only(found: Examination, what: What) -> Check:
    (check,) = [check for check in found.checks if check.what is what]
    return check


def servers(state: Path, *ports: int) -> None:
    listed = ", ".join(f'{{"host": "localhost", "port": {port}}}' for port in ports)
    (state / "servers.json").write_text(f"[{listed}]")


# --- all is well ---------------------------------------------------------------------------------


async def test_without_an_agent_it_tries_the_connection_itself(tmp_path: Path) -> None:
    async with hospital(tmp_path) as (state, served):
        found = await look(state)
        assert found.ok
        assert only(found, What.MQTT).shown.code is Said.ACCEPTED
        assert only(found, What.CLOCK).shown.code is Said.CLOCK_GOOD
        assert only(found, What.AGENT).shown.code is Said.AGENT_OFF
        assert served.connects == 1
        await served.until(lambda: served.disconnects)


async def test_beside_an_agent_it_does_not_put_it_out(tmp_path: Path) -> None:
    async with hospital(tmp_path) as (state, served), Running(state) as running:
        await served.until(lambda: served.of(Hello))
        found = await look(state)
        assert found.ok
        assert only(found, What.MQTT).shown.code is Said.BORNE
        assert only(found, What.AGENT).shown.code is Said.AGENT_ONLINE
        assert (served.connects, served.disconnects) == (1, [])
        assert running.agent.online


async def test_before_enrolment_it_looks_at_the_way_to_the_portal(tmp_path: Path) -> None:
    async with front() as port:
        state = tmp_path / "state"
        provision(state, AUTHORITY, port=port)
        found = await look(state)
        assert found.ok
        assert only(found, What.CREDENTIAL).shown.code is Said.NOT_ENROLLED
        assert found.servers == (f"localhost:{port}",)
        assert only(found, What.TLS).verdict is Verdict.GOOD
        assert not list(state.glob("*.key"))  # looking makes nothing


async def test_a_state_directory_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="provisioning bundle"):
        await look(tmp_path)


# --- the network's faults ------------------------------------------------------------------------


async def test_a_name_that_is_not_known(tmp_path: Path) -> None:
    def resolve(*_args: Any, **_options: Any) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async with hospital(tmp_path) as (state, _served):
        found = await look(state, resolve=resolve)
    assert bad(found) == [Code.NAME_UNKNOWN]
    assert only(found, What.CLOCK).shown.code is Said.CLOCK_UNKNOWN


async def test_a_blocked_port(tmp_path: Path, free_port: int) -> None:
    async with hospital(tmp_path) as (state, _served):
        servers(state, free_port)
        assert bad(await look(state)) == [Code.PORT_REFUSED]


async def test_a_new_access_server_that_the_firewall_does_not_know_yet(
    tmp_path: Path, free_port: int
) -> None:
    """R-CON-3, R-CON-7: the injector is on line by the old one, and the report names the new."""
    async with hospital(tmp_path) as (state, served):
        save(
            state,
            [Server(host="localhost", port=served.gate.port)],
            [Server(host="localhost", port=free_port)],
        )
        found = await look(state)
    assert found.ok
    (new,) = noted(found)
    assert new.shown.code is Code.PORT_REFUSED
    what, remedy = checks.tell(new)
    assert remedy.startswith("Nothing must be done now")
    assert "firewall" not in what
    assert f"localhost:{free_port}" in found.servers
    assert f"localhost:{served.gate.port}" in found.servers


async def test_a_captive_portal(tmp_path: Path) -> None:
    page = b"HTTP/1.1 302 Found\r\nLocation: https://login.example/\r\n\r\n"
    async with hospital(tmp_path) as (state, _served), serving(answers(page)) as port:
        servers(state, port)
        assert bad(await look(state)) == [Code.CAPTIVE_PORTAL]


async def test_tls_inspection_is_named_in_both_languages(tmp_path: Path) -> None:
    async with (
        hospital(tmp_path) as (state, served),
        intercepting(STRANGER, served.gate.port) as port,
    ):
        servers(state, port)
        found = await look(state)
        assert bad(found) == [Code.TLS_INSPECTED]
        assert served.connects == 0
    told = {}
    for language in i18n.LANGUAGES:
        i18n.use(language)
        told[language] = " ".join(checks.tell(only_bad(found)))
    i18n.use("en")
    for text in told.values():
        assert "Hospital Inspection server CA" in text
    assert "exempt" in told["en"]
    assert "inspection TLS" in told["fr_CA"]


def only_bad(found: Examination) -> Check:
    (check,) = [check for check in found.checks if check.verdict is Verdict.BAD]
    return check


async def test_a_firewall_that_refuses_mqtt_is_told_apart_from_a_dead_server(
    tmp_path: Path,
) -> None:
    async with (
        hospital(tmp_path) as (state, served),
        Firewall(served.gate.port).serving() as port,
    ):
        servers(state, port)
        found = await look(state)
    assert found.ok  # the injector gets through
    told = {(check.what, check.shown.code) for check in found.checks}
    assert (What.TLS, Code.MQTT_BLOCKED) in told
    assert (What.WEBSOCKET, Said.TOOK) in told
    assert (What.MQTT, Said.ACCEPTED) in told


async def test_the_proxys_refusal(tmp_path: Path) -> None:
    proxy = HttpProxy(credentials=("ct2", "right"))
    async with hospital(tmp_path) as (state, served), proxy.serving() as port:
        for change, wrong in (
            ({}, [Code.PROXY_WANTS_CREDENTIALS]),
            ({"user": "ct2", "password": "wrong"}, [Code.PROXY_REFUSES_CREDENTIALS]),
            ({"user": "ct2", "password": "right"}, []),
        ):
            new = settings.changed(settings.Settings(), {"proxy": f"127.0.0.1:{port}", **change})
            settings.save(state, new)
            found = await look(state)
            assert bad(found) == wrong
            assert found.proxy == f"127.0.0.1:{port}"
        assert set(proxy.asked) >= {f"localhost:{served.gate.port}"}


async def test_one_of_two_servers_dead_keeps_nothing_from_working(
    tmp_path: Path, free_port: int
) -> None:
    """With the agent on line by the other, and without one; a dead server alone is a failure."""
    async with hospital(tmp_path) as (state, served):
        servers(state, free_port, served.gate.port)
        assert (await look(state)).ok
        async with Running(state) as running:
            await until(lambda: running.agent.online)
            found = await look(state)
        assert found.ok
        assert [check.shown.code for check in noted(found)] == [Code.PORT_REFUSED]
        text = report.as_text(found)
        assert "This injector can connect. See the notes below." in text
        assert "Something keeps" not in text
        servers(state, free_port)
        assert not (await look(state)).ok


@pytest.mark.parametrize("name", ["servers.json", "network.json"])
async def test_a_small_file_that_is_damaged_is_told_and_the_rest_is_looked_at(
    tmp_path: Path, name: str
) -> None:
    async with hospital(tmp_path) as (state, served):
        (state / name).write_text("junk")
        found = await look(state)
    assert only(found, What.FILES).shown.code is Said.FILE_LOST
    assert name in checks.tell(only(found, What.FILES))[0]
    assert [check for check in found.checks if check.what is What.TLS]
    assert found.ok is (name == "network.json")
    assert served.connects == (name == "network.json")


async def test_an_identity_that_cannot_be_used_is_diagnosed(tmp_path: Path) -> None:
    async with hospital(tmp_path) as (state, _served):
        (state / "device.key").unlink()
        found = await look(state)
    assert bad(found) == [Said.FILE_UNUSABLE]
    assert "provisioning bundle" in checks.tell(only_bad(found))[0]
    assert only(found, What.TLS).verdict is Verdict.GOOD


# --- certificates and clocks ---------------------------------------------------------------------


async def test_an_own_certificate_that_is_over(tmp_path: Path) -> None:
    async with hospital(tmp_path) as (state, _served):
        issued = AUTHORITY.device("device-0001", starts=-dt.timedelta(days=40))
        (state / "device.key").write_bytes(issued.key_pem)
        (state / "device.pem").write_bytes(issued.chain_pem)
        found = await look(state)
    assert only(found, What.CREDENTIAL).shown.code is Code.OWN_EXPIRED
    assert bad(found) == [Code.OWN_EXPIRED, Code.OWN_EXPIRED]
    assert "by itself" in checks.tell(only(found, What.CREDENTIAL))[1]


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        ("credential_revoked", Code.OWN_REVOKED),
        ("credential_superseded", Code.OWN_SUPERSEDED),
        ("claim_refused", Code.OWN_REFUSED),
        ("", Code.CARRIERS_CUT),  # the portal gives no answer: nothing is claimed
    ],
)
async def test_a_certificate_that_the_gate_denies(tmp_path: Path, refusal: str, code: Code) -> None:
    """The gate says nothing; the portal is asked, and the network is not blamed for it."""
    async with hospital(tmp_path, refusal=refusal) as (state, served):
        served.gate.deny(DenyList(devices=frozenset({DEVICE})))
        found = await look(state)
        assert served.connects == 0
    assert bad(found) == [code]
    blamed = "Hospital IT" in checks.tell(only_bad(found))[1]
    assert blamed is (code is Code.CARRIERS_CUT)


async def test_a_firewall_that_cuts_both_carriers_is_not_taken_for_a_refusal(
    tmp_path: Path,
) -> None:
    async with portal(tmp_path / "gate", AUTHORITY) as served:
        async with EnrolmentServer(AUTHORITY, access_port=1).serving() as server:
            state = enrolled(tmp_path / "state", AUTHORITY, 1, enrol_port=server.port)
            before = sorted((path.name, path.read_bytes()) for path in state.iterdir())
            async with Guillotine(served.gate.port).serving() as port:
                known = identity.load(state)
                assert known is not None
                assert await enrolment.judge(known) is None  # good, and it is given again
                servers(state, port)
                before = sorted((path.name, path.read_bytes()) for path in state.iterdir())
                found = await look(state)
        assert served.connects == 0
    assert Code.CARRIERS_CUT in bad(found)
    after = sorted((path.name, path.read_bytes()) for path in state.iterdir())
    assert [each for each in after if each[0] != "agent.lock"] == before  # asking keeps nothing


async def test_a_foreign_certificate_is_refused(tmp_path: Path) -> None:
    async with portal(tmp_path / "gate", AUTHORITY) as served, front() as port:
        state = enrolled(tmp_path / "state", STRANGER, served.gate.port, enrol_port=port)
        bundle = provision(tmp_path / "other", AUTHORITY, port=port)
        ours = provision(state, STRANGER, port=port)
        ours["anchors"]["server_ca"] = bundle["anchors"]["server_ca"]
        provision(state, STRANGER, port=port, anchors=ours["anchors"])
        assert bad(await look(state)) == [Code.CARRIERS_CUT]


@pytest.mark.parametrize(
    ("off", "code"), [(-400 * DAY, Code.CLOCK_BEHIND), (400 * DAY, Code.CLOCK_AHEAD)]
)
async def test_a_wrong_clock_is_told_by_the_servers(tmp_path: Path, off: float, code: Code) -> None:
    async with hospital(tmp_path) as (state, _served):
        found = await look(state, wall=lambda: time.time() + off)
    clock = only(found, What.CLOCK)
    assert (clock.verdict, clock.shown.code) == (Verdict.ADVICE, code)
    assert found.ok  # it connects all the same
    assert noted(found) == [clock]


async def test_a_clock_before_what_was_signed_is_wrong_without_any_server(tmp_path: Path) -> None:
    state = enrolled(tmp_path / "state", AUTHORITY, 1)
    found = await look(state, wall=lambda: BUILD_DATE_MS / 1000 - DAY)
    assert only(found, What.CLOCK).shown.code is Code.CLOCK_BEHIND


@pytest.mark.parametrize(
    ("starts", "date", "code"),
    [
        (dt.timedelta(days=-60), 0.0, Code.SERVER_EXPIRED),
        (dt.timedelta(days=-60), -40 * DAY, Code.CLOCK_AHEAD),
        (dt.timedelta(days=5), 6 * DAY, Code.CLOCK_BEHIND),
    ],
)
async def test_the_servers_certificate_and_the_clock_are_told_apart(
    tmp_path: Path, starts: dt.timedelta, date: float, code: Code
) -> None:
    """The server's date is asked for over a connection that is ours in everything but time."""
    shown = AUTHORITY.server_at(starts)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    shown.load(context)
    async with (
        front(date=time.time() + date, shown=shown) as port,
        serving(answers(b""), context) as gate,
    ):
        state = enrolled(tmp_path / "state", AUTHORITY, gate, enrol_port=port)
        found = await look(state)
    assert code in bad(found)
    tls = [check for check in found.checks if check.target == f"localhost:{gate}"][-1]
    assert tls.shown.code is code


async def test_the_time_of_an_inspecting_proxy_is_not_asked_for(tmp_path: Path) -> None:
    async with front(date=0.0, shown=STRANGER.server) as port:
        state = tmp_path / "state"
        provision(state, AUTHORITY, port=port)
        found = await look(state)
    assert only(found, What.CLOCK).shown.code is Said.CLOCK_UNKNOWN
    assert bad(found) == [Code.TLS_INSPECTED]


async def test_pings_that_had_to_come_closer_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hospital(tmp_path) as (state, served), Running(state) as running:
        await served.until(lambda: served.of(Hello))
        keepalive = running.agent._connection._core.keepalive  # type: ignore[union-attr]
        monkeypatch.setattr(keepalive, "cut_after", 8.0)
        found = await look(state)
        assert found.ok
        await until(lambda: running.agent.online)
    assert Code.IDLE_CUT in [check.shown.code for check in found.checks]
