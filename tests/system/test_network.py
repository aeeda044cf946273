"""The agent and its doctor behind Debian's squid and tinyproxy, under TLS inspection, with a clock
that is years off, and beside OpenSSL's own look from a workstation (R-CON-2, R-CON-7, R-ASR-4)."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.network import settings
from agent.wire import messages
from agent.wire.messages import Event, Hello
from tests.agent.doctor.test_examination import AUTHORITY, STRANGER, hospital, servers
from tests.agent.network.relays import intercepting
from tests.agent.support import EnrolmentServer, portal, provision
from tests.agent.test_runtime import Running, until
from tests.system.proxies import PASSWORD, USER, squid, tinyproxy

pytestmark = [pytest.mark.system, pytest.mark.timeout(90)]

PROXIES = [squid, tinyproxy]
COMMAND = [sys.executable, "-c", "from agent.main import main; main()", "doctor"]


def use(state: Path, port: int, user: str | None = USER, password: str = PASSWORD) -> None:
    change: dict[str, Any] = {"proxy": f"127.0.0.1:{port}"}
    if user is not None:
        change |= {"user": user, "password": password}
    settings.save(state, settings.changed(settings.Settings(), change))


async def doctor(state: Path, *before: str) -> tuple[int, dict[str, Any], str]:
    """The command as a person runs it: status, JSON, and the page."""
    page = state.parent / "page.txt"
    arguments = ["--state", str(state), "-o", "json", "--report", str(page)]

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*before, *COMMAND, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "FAKETIME_DONT_FAKE_MONOTONIC": "1"},
        )

    ran = await asyncio.to_thread(run)
    assert ran.stdout, ran.stderr
    return ran.returncode, json.loads(ran.stdout), page.read_text()


def bad(shown: dict[str, Any]) -> list[str]:
    return [check["code"] for check in shown["checks"] if check["verdict"] == "bad"]


# --- real proxies --------------------------------------------------------------------------------


@pytest.mark.parametrize("proxy", PROXIES)
async def test_an_injector_enrols_and_works_through_it(
    proxy: Callable[..., Any], tmp_path: Path
) -> None:
    async with portal(tmp_path / "gate", AUTHORITY) as served:
        server = EnrolmentServer(AUTHORITY, access_port=served.gate.port)
        async with server.serving():
            state = tmp_path / "state"
            provision(state, AUTHORITY, port=server.port)
            with proxy(server.port, served.gate.port) as port:
                use(state, port)
                async with Running(state) as running:
                    await served.until(lambda: served.of(Hello), 20)
                    running.event()
                    await served.until(lambda: served.of(Event))
                    assert running.agent.status()["trouble"] == ""
                    await until(lambda: running.agent.outbox.depth == 0)
    up = b"".join(messages.encode(m) for m in (*served.decided, *served.now))
    for secret in (PASSWORD, str(port)):
        assert secret.encode() not in up


@pytest.mark.parametrize("proxy", PROXIES)
async def test_the_doctor_behind_it(proxy: Callable[..., Any], tmp_path: Path) -> None:
    async with hospital(tmp_path) as (state, served):
        enrol = json.loads((state / "provision.json").read_text())["enrol"]["port"]
        with proxy(served.gate.port, enrol) as port:
            use(state, port)
            status, shown, page = await doctor(state)
            assert (status, bad(shown)) == (0, [])
            assert {"check": "proxy", "verdict": "good"}.items() <= next(
                check.items() for check in shown["checks"] if check["check"] == "proxy"
            )
            assert f"127.0.0.1:{port}" in page
            assert PASSWORD not in page + json.dumps(shown)
            use(state, port, password="wrong")
            status, shown, page = await doctor(state)
            assert status == 8
            assert bad(shown) == ["proxy_refuses_credentials"]
            assert "refuses the user name or password" in page
            assert "refuse le nom d’utilisateur ou le mot de passe" in page
            use(state, port, user=None)
            assert bad((await doctor(state))[1]) == ["proxy_wants_credentials"]


@pytest.mark.parametrize("proxy", PROXIES)
async def test_what_it_forbids_and_what_it_cannot_reach(
    proxy: Callable[..., Any], tmp_path: Path, free_port: int
) -> None:
    async with hospital(tmp_path) as (state, served):
        with proxy(free_port) as port:
            use(state, port)
            assert bad((await doctor(state))[1]) == ["proxy_forbids"]
            servers(state, free_port)
            assert bad((await doctor(state))[1]) == ["proxy_cannot_reach"]
        assert served.connects == 0


# --- inspection and clocks -----------------------------------------------------------------------


async def test_under_tls_inspection_behind_a_proxy(tmp_path: Path) -> None:
    async with (
        hospital(tmp_path) as (state, served),
        intercepting(STRANGER, served.gate.port) as port,
    ):
        servers(state, port)
        with squid(port, credentials=False) as proxy:
            use(state, proxy, user=None)
            status, shown, page = await doctor(state)
        assert (status, bad(shown)) == (8, ["tls_inspected"])
        assert served.connects == 0
    english, french = page.split("=" * 100)
    assert "it was issued by Hospital Inspection server CA" in english
    assert f"exempt localhost:{port} from TLS inspection" in english
    assert "il a été émis par Hospital Inspection server CA" in french
    assert f"exemptez localhost:{port} de l’inspection TLS" in french


@pytest.mark.parametrize(
    ("clock", "code", "english", "french"),
    [
        ("2026-11-01 00:00:00", "clock_behind", "clock is behind", "retarde"),
        ("+400d", "clock_ahead", "clock is ahead", "avance"),
    ],
)
async def test_with_a_wrong_clock(
    tmp_path: Path, clock: str, code: str, english: str, french: str
) -> None:
    async with hospital(tmp_path) as (state, _served):
        status, shown, page = await doctor(state, "faketime", "-f", clock)
    assert status == 8  # so far off that the server's certificate seems not to be valid
    assert set(bad(shown)) == {code}
    halves = page.split("=" * 100)
    assert english in halves[0]
    assert "Hospital biomed: set the date and time" in halves[0]
    assert french in halves[1]
    assert "réglez la date et l’heure" in halves[1]


# --- from a workstation --------------------------------------------------------------------------


def ran(line: str) -> str:
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=30).stdout


async def test_the_line_for_a_workstation_shows_who_answers(tmp_path: Path) -> None:
    async with (
        hospital(tmp_path) as (state, served),
        intercepting(STRANGER, served.gate.port) as inspected,
    ):
        servers(state, served.gate.port, inspected)
        with tinyproxy(served.gate.port, inspected, credentials=False) as proxy:
            for set_proxy in (False, True):
                if set_proxy:
                    use(state, proxy, user=None)
                _status, shown, page = await doctor(state)
                through = [line for line in shown["openssl"] if "-proxy" in line]
                assert len(through) == (len(shown["openssl"]) if set_proxy else 0)
                ours, theirs = [await asyncio.to_thread(ran, line) for line in shown["openssl"][:2]]
                assert "issuer=CN = test server CA" in ours
                assert "CN=test server CA" in page
                assert "issuer=CN = Hospital Inspection server CA" in theirs


async def test_through_squid_with_credentials_the_line_works_once_the_password_is_put_in(
    tmp_path: Path,
) -> None:
    async with hospital(tmp_path) as (state, served):
        with squid(served.gate.port) as proxy:
            use(state, proxy)
            _status, shown, _page = await doctor(state)
            line = shown["openssl"][0]
            assert PASSWORD not in line
            answer = await asyncio.to_thread(ran, line.replace("PASSWORD", PASSWORD))
    assert "issuer=CN = test server CA" in answer
