"""A whole agent behind the firewalls and proxies of a hospital (R-CON-2, R-CON-7, R-PRV-2)."""

import asyncio
import datetime as dt
import email.utils
import json
import logging
import socket
import ssl
import time
from itertools import pairwise
from pathlib import Path

import pytest

from agent import control, core, enrolment, renewal
from agent.errors import ControlError, NetworkError
from agent.network import journey, settings
from agent.network.pace import BURST_S, OVERHEAD
from agent.renewal import Renewal
from agent.runtime import Agent
from agent.wire import messages, topics
from agent.wire.messages import Audit, Event, Heartbeat, Hello
from agent.wire.pacer import Turn
from broker.denied import DenyList
from tests.agent.network.relays import (
    Firewall,
    Forgetful,
    Guillotine,
    HttpProxy,
    Impatient,
    answers,
    intercepting,
    serving,
)
from tests.agent.support import DEVICE, EnrolmentServer, Portal, enrolled, portal, provision
from tests.agent.test_runtime import Running, until
from tests.tls import Authority

AUTHORITY = Authority()
STRANGER = Authority("Hospital Inspection")
QUIET = core.Timing(ping=1.0, silence=1.2, heartbeat=3600, back_off=0.05, back_off_cap=0.1)
PASSWORD = "Zr8-never-up"
SEAMS = journey.Journey.__init__.__kwdefaults__


def set_proxy(state: Path, port: int, **credentials: str) -> None:
    change = {"proxy": f"127.0.0.1:{port}", **credentials}
    settings.save(state, settings.changed(settings.Settings(), change))


def everything_up(served: Portal) -> bytes:
    return b"\n".join(messages.encode(message) for message in (*served.decided, *served.now))


# --- a firewall that refuses MQTT ----------------------------------------------------------------


async def test_behind_a_firewall_that_refuses_mqtt_it_takes_the_websocket_and_remembers(
    tmp_path: Path,
) -> None:
    async with portal(tmp_path / "gate", AUTHORITY) as served:
        firewall = Firewall(served.gate.port)
        async with firewall.serving() as port:
            state = enrolled(tmp_path / "state", AUTHORITY, port)
            async with Running(state) as running:
                await served.until(lambda: served.of(Hello))
                assert firewall.cut == 1
                running.event()
                await served.until(lambda: served.of(Event))
                status = running.agent.status()
                assert status["carrier"] == "websocket"
                assert status["trouble"] == ""
                served.gate.kick(DEVICE)
                await served.until(lambda: len(served.of(Hello)) == 2)
            async with Running(state):
                await served.until(lambda: len(served.of(Hello)) == 3)
            assert firewall.cut == 1  # it never tried MQTT again


async def test_when_mqtt_is_let_through_it_needs_no_websocket(tmp_path: Path) -> None:
    async with (
        portal(tmp_path / "gate", AUTHORITY) as served,
        Firewall(served.gate.port, blocks=False).serving() as port,
    ):
        state = enrolled(tmp_path / "state", AUTHORITY, port)
        async with Running(state) as running:
            await served.until(lambda: served.of(Hello))
            assert running.agent.status()["carrier"] == "mqtt"


async def test_many_frames_cross_the_websocket_both_ways(tmp_path: Path) -> None:
    async with (
        portal(tmp_path / "gate", AUTHORITY) as served,
        Firewall(served.gate.port).serving() as port,
    ):
        state = enrolled(tmp_path / "state", AUTHORITY, port)
        async with Running(state) as running:
            await served.until(lambda: served.of(Hello))
            frames = [bytes([n]) * 60_000 for n in range(50)]
            waiting = list(frames)
            running.agent.stream_source(lambda turn, most: waiting.pop(0) if waiting else None)
            came: list[bytes] = []
            running.agent.on_frame(came.append)
            running.agent.frames_ready()
            await served.until(lambda: len(served.frames) == len(frames))
            assert served.frames == frames
            for count, frame in enumerate(frames, 1):
                assert served.gate.publish(topics.down_stream(DEVICE), frame)
                await until(lambda count=count: len(came) == count)
            assert came == frames


# --- a proxy -------------------------------------------------------------------------------------


async def test_enrolment_and_link_go_through_the_proxy(tmp_path: Path) -> None:
    """R-CON-2: nobody types anything but the proxy's settings."""
    proxy = HttpProxy(credentials=("ct2", PASSWORD))
    async with portal(tmp_path / "gate", AUTHORITY) as served, proxy.serving() as port:
        server = EnrolmentServer(AUTHORITY, access_port=served.gate.port)
        async with server.serving():
            state = tmp_path / "state"
            provision(state, AUTHORITY, port=server.port)
            set_proxy(state, port, user="ct2", password=PASSWORD)
            async with Running(state):
                await served.until(lambda: served.of(Hello))
            assert set(proxy.asked) == {
                f"localhost:{server.port}",
                f"localhost:{served.gate.port}",
            }


async def test_set_while_it_runs_it_goes_by_it_at_once_and_tells_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """R-PRV-2: neither the proxy nor its credentials leave, nor does a log hold them."""
    caplog.set_level(logging.DEBUG)
    proxy = HttpProxy(credentials=("ct2", PASSWORD))
    async with portal(tmp_path / "gate", AUTHORITY) as served, proxy.serving() as port:
        state = enrolled(tmp_path / "state", AUTHORITY, served.gate.port)
        async with Running(state) as running:
            await served.until(lambda: served.of(Hello))
            address = f"127.0.0.1:{port}"
            shown = await asyncio.to_thread(
                control.call, state, "network-set", proxy=address, user="ct2", password=PASSWORD
            )
            assert shown == {"proxy": address, "proxy_user": "ct2", "up_bytes_s": None}
            await served.until(lambda: len(served.of(Hello)) == 2)
            assert proxy.asked
            running.event()
            await served.until(lambda: served.of(Event))
            await served.until(
                lambda: "network:change" in [e.action for a in served.of(Audit) for e in a.entries]
            )
            wrong = await asyncio.to_thread(
                control.call, state, "network-set", proxy=address, user="ct2", password="guess"
            )
            assert "guess" not in str(wrong)
            await until(lambda: running.agent.status()["finding"] == "proxy_refuses_credentials")
            trouble = running.agent.status()["trouble"]
            assert address in trouble
            await asyncio.to_thread(control.call, state, "network-set", proxy=None)
            await served.until(lambda: len(served.of(Hello)) == 3)
            await served.until(lambda: running.agent.outbox.depth == 0)
        up = everything_up(served)
        for secret in (PASSWORD, "guess", address, str(port), "proxy", "ct2"):
            assert secret.encode() not in up.replace(b"ct-dual", b"")
        for secret in (PASSWORD, "guess"):
            assert secret not in caplog.text
            assert secret.encode() not in (state / "agent.db").read_bytes()


async def test_what_cannot_be_set_is_refused_and_the_old_stays(tmp_path: Path) -> None:
    async with portal(tmp_path / "gate", AUTHORITY) as served:
        state = enrolled(tmp_path / "state", AUTHORITY, served.gate.port)
        async with Running(state):
            await served.until(lambda: served.of(Hello))
            with pytest.raises(ControlError, match="HOST:PORT"):
                await asyncio.to_thread(control.call, state, "network-set", proxy="proxy")
            assert not (state / "network.json").exists()


async def test_a_proxy_can_be_set_before_there_is_an_identity(tmp_path: Path) -> None:
    async with EnrolmentServer(AUTHORITY).serving() as server, HttpProxy().serving() as port:
        state = tmp_path / "state"
        provision(state, AUTHORITY, port=server.port, enrol={"host": "localhost", "port": 1})
        async with Running(state) as running:
            await until(lambda: "localhost:1" in running.agent.status()["trouble"])
            shown = await asyncio.to_thread(
                control.call, state, "network-set", proxy=f"127.0.0.1:{port}"
            )
            assert shown["proxy"] == f"127.0.0.1:{port}"


async def test_another_proxy_ends_the_pause_before_the_next_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrolment, "AGAIN_S", (3600.0, 3600.0))
    async with EnrolmentServer(AUTHORITY).serving() as server:
        proxy = HttpProxy(leads={"localhost:1": server.port})
        state = tmp_path / "state"
        provision(state, AUTHORITY, port=1)
        async with proxy.serving() as port, Running(state) as running:
            await until(lambda: bool(running.agent.status()["trouble"]))
            await asyncio.to_thread(control.call, state, "network-set", proxy=f"127.0.0.1:{port}")
            await until((state / "device.pem").exists)


async def test_enrolment_names_what_is_wrong_with_the_proxy(tmp_path: Path) -> None:
    async with HttpProxy(credentials=("ct2", PASSWORD)).serving() as port:
        provision(tmp_path, AUTHORITY, port=443)
        set_proxy(tmp_path, port)
        with pytest.raises(NetworkError, match="asks for a user name"):
            await enrolment.enrol(tmp_path)


# --- what lies between ---------------------------------------------------------------------------


@pytest.mark.parametrize(("language", "told"), [("en", "is not known here"), ("fr_CA", "inconnu")])
async def test_a_name_that_is_not_known_is_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, language: str, told: str
) -> None:
    """THREATS, faults: DNS failure."""

    def resolve(*_args: object, **_options: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    state = enrolled(tmp_path / "state", AUTHORITY, 443)
    (state / "driver.json").write_text(json.dumps({"language": language}))
    monkeypatch.setattr(journey.Journey.__init__, "__kwdefaults__", SEAMS | {"resolve": resolve})
    async with Running(state) as running:
        await until(lambda: running.agent.status().get("finding") == "name_unknown")
        said = (await asyncio.to_thread(control.call, state, "status"))["trouble"]
        assert told in said
        assert "localhost:443" in said


async def test_tls_inspection_is_named_and_nothing_is_said_through_it(tmp_path: Path) -> None:
    """THREATS, faults: TLS-inspecting proxy."""
    async with (
        portal(tmp_path / "gate", AUTHORITY) as served,
        intercepting(STRANGER, served.gate.port) as port,
    ):
        state = enrolled(tmp_path / "state", AUTHORITY, port)
        async with Running(state) as running:
            await until(lambda: running.agent.status().get("finding") == "tls_inspected")
            assert "Hospital Inspection server CA" in running.agent.status()["trouble"]
        assert served.connects == 0


@pytest.mark.parametrize("resets", [True, False], ids=["reset", "dropped"])
async def test_a_firewall_that_forgets_silent_connections_makes_the_pings_closer(
    tmp_path: Path, resets: bool
) -> None:
    async with portal(tmp_path / "gate", AUTHORITY) as served:
        firewall = Forgetful(served.gate.port, after=0.8, resets=resets)
        async with firewall.serving() as port:
            state = enrolled(tmp_path / "state", AUTHORITY, port)
            async with Running(state, timing=QUIET) as running:
                await until(lambda: running.agent.status().get("keepalive_s") == 0.5, 15)
                hellos = len(served.of(Hello))
                await served.until(lambda: len(served.of(Hello)) > hellos)
                await until(lambda: running.agent.online)

                # A machine that stood still for a moment may have lost another one.
                async with asyncio.timeout(30):
                    while (forgot := firewall.forgot) >= 0:
                        await asyncio.sleep(2.0)
                        if firewall.forgot == forgot and running.agent.online:
                            break


async def test_an_idle_time_out_that_resets_makes_the_pings_closer(tmp_path: Path) -> None:
    async with portal(tmp_path / "gate", AUTHORITY) as served:
        firewall = Impatient(served.gate.port, after=0.8)
        async with firewall.serving() as port:
            state = enrolled(tmp_path / "state", AUTHORITY, port)
            async with Running(state, timing=QUIET) as running:
                await until(lambda: running.agent.status().get("keepalive_s") == 0.5, 15)
                assert running.agent.status()["cut_after_s"] == pytest.approx(0.8, abs=0.2)
                assert "Unspecified" not in running.agent.status()["trouble"]
                await until(lambda: running.agent.online)


# --- who hangs up --------------------------------------------------------------------------------

SOON = renewal.Timing(doubted_s=(0.1, 0.2), again_s=(0.3, 0.5))


def renewing(agent: Agent) -> None:
    renewal.plug(agent, Renewal(agent, timing=SOON))


@pytest.mark.parametrize(
    ("refusal", "code", "told"),
    [
        ("credential_revoked", "own_revoked", "a révoqué"),
        ("credential_superseded", "own_superseded", "plus récent"),
        ("claim_refused", "own_refused", "n’accepte plus"),
    ],
)
async def test_a_certificate_that_is_good_no_more_is_not_blamed_on_the_network(
    tmp_path: Path, refusal: str, code: str, told: str
) -> None:
    """The gate hangs up without a word on both carriers; the portal is asked, and what it says
    stays the finding whatever is tried next."""
    body = json.dumps({"error": refusal}).encode()
    server = EnrolmentServer(AUTHORITY, answer=lambda claim: (403, body))
    async with portal(tmp_path / "gate", AUTHORITY) as served, server.serving():
        state = enrolled(tmp_path / "state", AUTHORITY, served.gate.port, enrol_port=server.port)
        async with Running(state, parts=[renewing]) as running:
            await served.until(lambda: served.of(Hello))
            served.gate.deny(DenyList(devices=frozenset({DEVICE})))
            await until(lambda: running.agent.status()["finding"] == code)
            asked, seen = len(server.requests), set()
            while len(server.requests) < asked + 3:
                seen.add(running.agent.status()["finding"])
                await asyncio.sleep(0.01)
            assert seen == {code}
            said = await asyncio.to_thread(control.call, state, "status", language="fr")
            assert told in said["trouble"]
            assert "Informatique" not in said["trouble"]
            served.gate.deny(DenyList())
            await served.until(lambda: len(served.of(Hello)) == 2)
            assert running.agent.status()["trouble"] == ""


async def test_a_firewall_that_cuts_both_carriers_is_named_and_the_certificate_cleared(
    tmp_path: Path,
) -> None:
    async with portal(tmp_path / "gate", AUTHORITY) as served:
        server = EnrolmentServer(AUTHORITY, access_port=1)
        firewall = Guillotine(served.gate.port)
        async with server.serving(), firewall.serving() as port:
            server.access_port = port
            state = enrolled(tmp_path / "state", AUTHORITY, port, enrol_port=server.port)
            async with Running(state, parts=[renewing]) as running:
                await until(lambda: len(server.requests) >= 2)
                await until(lambda: running.agent.status()["finding"] == "carriers_cut")
                assert "inspection" in running.agent.status()["trouble"]
                assert "certificate_trouble" not in running.agent.status()
        assert served.connects == 0


async def test_a_clock_that_is_ahead_is_named_as_the_doctor_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The certificate of the server looks expired; what time it is the portal says."""
    ended = AUTHORITY.server_at(dt.timedelta(days=-60))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ended.load(context)
    month = time.time() - 40 * 86400  # when that certificate was good
    head = f"HTTP/1.1 302 Found\r\nDate: {email.utils.formatdate(month, usegmt=True)}\r\n\r\n"
    async with (
        serving(answers(b""), context) as gate,
        serving(answers(head.encode()), context) as front,
    ):
        state = enrolled(tmp_path / "state", AUTHORITY, gate, enrol_port=front)
        async with Running(state) as running:
            await until(lambda: running.agent.status().get("finding") == "clock_ahead")
            assert "NTP" in running.agent.status()["trouble"]


# --- small files that are lost -------------------------------------------------------------------


@pytest.mark.parametrize("text", [None, "junk"])
async def test_without_its_list_of_servers_it_finds_the_way_and_says_so(
    tmp_path: Path, text: str | None
) -> None:
    async with (
        portal(tmp_path / "gate", AUTHORITY) as served,
        EnrolmentServer(AUTHORITY, access_port=served.gate.port).serving() as server,
    ):
        state = enrolled(tmp_path / "state", AUTHORITY, 1, enrol_port=server.port)
        if text is None:
            (state / "servers.json").unlink()
        else:
            (state / "servers.json").write_text(text)
        async with Running(state, parts=[renewing]) as running:
            await until(lambda: "servers.json" in running.agent.status().get("files_trouble", ""))
            await served.until(lambda: served.of(Hello))
            await served.until(lambda: "servers:lost" in actions(served))
            assert "files_trouble" not in running.agent.status()
        assert str(served.gate.port) in (state / "servers.json").read_text()


def actions(served: Portal) -> list[str]:
    return [entry.action for audit in served.of(Audit) for entry in audit.entries]


async def test_damaged_network_settings_keep_nobody_off_line(tmp_path: Path) -> None:
    async with portal(tmp_path / "gate", AUTHORITY) as served:
        state = enrolled(tmp_path / "state", AUTHORITY, served.gate.port)
        (state / "network.json").write_text("junk")
        async with Running(state) as running:
            await served.until(lambda: "network:lost" in actions(served))
            assert "panel" in running.agent.status()["files_trouble"]
            await asyncio.to_thread(control.call, state, "network-set", up_bytes_s=9000)
            assert "files_trouble" not in running.agent.status()


# --- the site's cap ------------------------------------------------------------------------------


async def test_a_cap_holds_for_bulk_and_outbox_and_lets_heartbeats_pass(tmp_path: Path) -> None:
    """R-CON-4: under a cap that bulk would fill for minutes, signs of life come as ever."""
    rate, for_s = 24_000, 4.0
    async with portal(tmp_path / "gate", AUTHORITY) as served:
        state = enrolled(tmp_path / "state", AUTHORITY, served.gate.port)
        settings.save(state, settings.Settings(up_bytes_s=rate))
        async with Running(state) as running:
            await served.until(lambda: served.of(Heartbeat))
            loop = asyncio.get_running_loop()
            running.agent.stream_source(
                lambda turn, most: bytes(most) if turn is Turn.BULK else None
            )
            began, beats = loop.time(), len(served.of(Heartbeat))
            came = [began]
            running.agent.frames_ready()
            for _each in range(20):
                running.event()
            while loop.time() - began < for_s:
                if len(served.of(Heartbeat)) > beats:
                    beats = len(served.of(Heartbeat))
                    came.append(loop.time())
                await asyncio.sleep(0.01)
            sent = sum(map(len, served.frames))
            assert sent < rate * (for_s + 1.5)
            assert sent > rate * for_s / 3  # and the cap is used
            assert max(b - a for a, b in pairwise(came)) < 2.0  # one each 0.3 s
            await served.until(lambda: len(served.of(Event)) == 20)
            frames = len(served.frames)
            await asyncio.to_thread(control.call, state, "network-set", up_bytes_s=None)
            await served.until(lambda: len(served.frames) > frames + 50)
            running.agent.stream_source(lambda turn, most: None)


async def test_a_backlog_drains_at_the_cap_in_order_and_nothing_is_lost(tmp_path: Path) -> None:
    rate = 8_000
    async with portal(tmp_path / "gate", AUTHORITY) as served:
        state = enrolled(tmp_path / "state", AUTHORITY, served.gate.port)
        settings.save(state, settings.Settings(up_bytes_s=rate))
        async with Running(state) as running:
            await served.until(lambda: served.of(Hello))
            began = asyncio.get_running_loop().time()
            for _each in range(80):
                running.event()
            await served.until(lambda: len(served.of(Event)) == 80, 30)
            took = asyncio.get_running_loop().time() - began
        events = served.of(Event)
        size = sum(len(messages.encode(event)) + OVERHEAD for event in events)
        assert took > size / rate - 2 * BURST_S
        assert [event.seq for event in events] == sorted(event.seq for event in events)
        assert served.repeated == 0
