"""`patency-agent` as people and scripts meet it: statuses, JSON, a process that runs and stops."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner

from agent import audit, control, i18n, main
from agent.clock import Clock
from agent.errors import NotRunning
from agent.outbox import Outbox
from agent.store import Store
from agent.wire.catalogue import Outcome
from agent.wire.messages import Hello
from tests.agent.network.relays import HttpProxy
from tests.agent.support import (
    DEVICE,
    SERVER_AUDIT_KEY,
    EnrolmentServer,
    Portal,
    enrolled,
    portal,
    provision,
)
from tests.tls import Authority

AUTHORITY = Authority()
COMMAND = [sys.executable, "-c", "from agent.main import main; main()"]


def invoke(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(main.main, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@contextlib.contextmanager
def process(*states: Path, errors: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`patency-agent run`, killed at the end if it did not end before."""
    named = [part for state in states for part in ("--state", str(state))]
    with errors.open("wb") as log:
        started = subprocess.Popen(
            [*COMMAND, "run", *named], stdout=subprocess.PIPE, stderr=log, env=dict(os.environ)
        )
    try:
        yield started
    finally:
        if started.poll() is None:
            started.kill()
        started.wait(10)
        assert started.stdout is not None
        started.stdout.close()


async def ended(started: subprocess.Popen[bytes], timeout_s: float) -> int:
    return await asyncio.to_thread(started.wait, timeout_s)


async def hellos(served: Portal, count: int) -> None:
    await served.until(lambda: len(served.of(Hello)) >= count, 30)


# --- the process ---------------------------------------------------------------------------------


async def test_the_running_agent_listens_on_no_network_socket(tmp_path: Path) -> None:
    """R-CON-3: outbound only; what listens is the Unix socket in the state directory."""
    async with portal(tmp_path / "gate", AUTHORITY) as served:
        state = enrolled(tmp_path / "state", AUTHORITY, served.gate.port)
        with process(state, errors=tmp_path / "log") as started:
            await hellos(served, 1)
            found = psutil.Process(started.pid).net_connections(kind="inet")
            assert [(c.status, c.raddr.port) for c in found] == [("ESTABLISHED", served.gate.port)]


async def test_run_prints_nothing_logs_to_stderr_and_stops_within_two_seconds(
    tmp_path: Path,
) -> None:
    async with portal(tmp_path / "gate", AUTHORITY) as served:
        state = enrolled(tmp_path / "state", AUTHORITY, served.gate.port)
        for number in (signal.SIGTERM, signal.SIGINT):
            seen = len(served.of(Hello))
            with process(state, errors=tmp_path / "log") as started:
                await hellos(served, seen + 1)
                began = time.monotonic()
                started.send_signal(number)
                assert await ended(started, 5) == 0
                assert time.monotonic() - began < 2
                assert started.stdout is not None
                assert started.stdout.read() == b""
            lines = [json.loads(line) for line in (tmp_path / "log").read_bytes().splitlines()]
            assert any(line["message"].startswith("connection: online") for line in lines)
            assert {line["agent"] for line in lines} == {"state"}
    assert audit.verify(state / "agent.db").good


async def test_kill_9_and_it_goes_on_where_it_was(tmp_path: Path) -> None:
    """THREATS, faults: kill -9 the agent; back within 10 s, nothing lost or repeated."""
    async with portal(tmp_path / "gate", AUTHORITY) as served:
        state = enrolled(tmp_path / "state", AUTHORITY, served.gate.port)
        for round in range(3):
            with process(state, errors=tmp_path / "log") as started:
                began = time.monotonic()
                await hellos(served, round + 1)
                assert time.monotonic() - began < 10
                await asyncio.sleep(0.05 * round)
                started.kill()
                await ended(started, 5)
                await served.until(lambda n=round: len(served.disconnects) > n)
        numbers = [message.seq for message in served.decided]
        assert numbers == list(range(1, len(numbers) + 1))
        assert len({message.outbox for message in served.decided}) == 1


async def test_one_agent_that_cannot_run_does_not_stop_the_others(tmp_path: Path) -> None:
    async with portal(tmp_path / "gate", AUTHORITY) as served:
        good = enrolled(tmp_path / "good", AUTHORITY, served.gate.port)
        bad = enrolled(tmp_path / "bad", AUTHORITY, served.gate.port, device="device-0002")
        (bad / "provision.json").write_text("{")
        with process(bad, good, errors=tmp_path / "log") as started:
            await hellos(served, 1)
            await asyncio.sleep(0.3)
            assert started.poll() is None
            shown = await asyncio.to_thread(control.call, good, "status")
            assert shown["device"] == DEVICE
            # Put right, it starts without a word from anybody.
            provision(bad, AUTHORITY)
            await served.until(lambda: len(served.gate.connections) == 2, 20)
            started.send_signal(signal.SIGTERM)
            assert await ended(started, 5) == 0


def test_one_state_directory_that_cannot_be_worked_on_ends_the_process(tmp_path: Path) -> None:
    ended = subprocess.run(
        [*COMMAND, "run", "--state", str(tmp_path / "none")], capture_output=True, timeout=30
    )
    assert ended.returncode == 2
    assert b"driver.json" in ended.stderr
    assert ended.stdout == b""


def test_a_state_directory_named_twice_is_a_mistake(tmp_path: Path) -> None:
    status, output = invoke("run", "--state", tmp_path, "--state", f"{tmp_path}/.")
    assert status == 2
    assert "twice" in output


# --- commands ------------------------------------------------------------------------------------


async def test_status_simulate_and_enrol_against_a_process(tmp_path: Path) -> None:
    async with portal(tmp_path / "gate", AUTHORITY) as served:
        server = EnrolmentServer(AUTHORITY, access_port=served.gate.port)
        state = tmp_path / "state"
        async with server.serving():
            provision(state, AUTHORITY, port=server.port)
            status, output = await asyncio.to_thread(
                invoke, "enrol", "--state", state, "-o", "json"
            )
            assert status == 0, output
            assert json.loads(output)["device"] == DEVICE
        with process(state, errors=tmp_path / "log"):
            await hellos(served, 1)
            status, output = await asyncio.to_thread(
                invoke, "status", "--state", state, "-o", "json"
            )
            shown = json.loads(output)
            assert status == 0
            assert shown["online"] is True
            assert {"connection", "access_server", "state", "outbox_depth"} <= set(shown)
            assert shown["certificate_expires_at"].endswith("+00:00")
            status, output = await asyncio.to_thread(invoke, "status", "--state", state)
            assert f"device                  {DEVICE}\n" in output
            assert "online                  yes\n" in output
            rtt = next(line for line in output.splitlines() if line.startswith("rtt ms"))
            assert len(rtt.split()[-1].partition(".")[2]) <= 1
            status, output = await asyncio.to_thread(
                invoke, "simulate", "--state", state, "--fault", "idle", "-o", "json"
            )
            assert (status, json.loads(output)) == (0, {"state": "idle"})
            status, output = await asyncio.to_thread(
                invoke, "enrol", "--state", state, "-o", "json"
            )
            assert (status, json.loads(output)["error"]) == (2, "already_running")


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["approve", "--pin", "1234"],
        ["refuse", "--pin", "1234", "--session", "ab" * 16],
        ["stop"],
        ["simulate", "--fault", "stall"],
        ["no-patient"],
        ["remote", "off"],
        ["pin", "--approver", "1", "--pin", "1234"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_without_an_agent_the_remedy_is_told(tmp_path: Path, arguments: list[str]) -> None:
    status, output = invoke(*arguments, "--state", tmp_path, "-o", "json")
    answer = json.loads(output)
    assert (status, answer["error"]) == (NotRunning.exit_status, "not_running")
    assert "patency-agent run" in answer["detail"]
    status, output = invoke(*arguments, "--state", tmp_path)
    assert status == 3
    assert "patency-agent run" in output


@pytest.mark.parametrize(
    "arguments", [["status"], ["approve", "--pin", "1234"], ["policy"]], ids=lambda it: it[0]
)
def test_a_state_directory_that_is_not_there_is_no_stopped_agent(
    tmp_path: Path, arguments: list[str]
) -> None:
    status, output = invoke(*arguments, "--state", tmp_path / "none", "-o", "json")
    assert (status, json.loads(output)["error"]) == (2, "state")


@pytest.mark.parametrize("command", ["panel", "console", "doctor", "run", "status"])
def test_a_path_that_is_no_state_directory_and_no_text_either(tmp_path: Path, command: str) -> None:
    ended = subprocess.run(
        [*COMMAND, command, "--state", os.fsencode(tmp_path) + b"/\xff"],
        capture_output=True, timeout=30, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert ended.returncode == 2, ended.stderr
    assert b"Traceback" not in ended.stderr
    assert ended.stderr.strip()


def test_the_advice_names_the_directory_whatever_its_name(tmp_path: Path) -> None:
    state = tmp_path / "CT 2"
    state.mkdir()
    status, output = invoke("status", "--state", state)
    assert status == 3
    assert f"patency-agent run --state '{state}'" in output


async def test_policy_is_shown_and_set_with_a_pin(tmp_path: Path) -> None:
    """R-CON-9: the site's policy, at the injector alone (docs/access.md)."""
    async with portal(tmp_path / "gate", AUTHORITY) as served:
        state = enrolled(tmp_path / "state", AUTHORITY, served.gate.port)

        async def run(*arguments: str) -> tuple[int, str]:
            return await asyncio.to_thread(invoke, *arguments, "--state", state, "-o", "json")

        with process(state, errors=tmp_path / "log"):
            await hellos(served, 1)
            assert (await run("pin", "--pin", "246810"))[0] == 0
            status, output = await run("policy")
            assert (status, json.loads(output)["approval_wait_s"]) == (0, 300)
            set_ = ("policy", "approval_wait_s=120", "service=deny", "--pin", "246810")
            status, output = await run(*set_)
            shown = json.loads(output)
            assert (status, shown["approval_wait_s"], shown["service"]) == (0, 120, "deny")
            assert json.loads((state / "policy.json").read_bytes())["approval_wait_s"] == 120
            status, output = await run("policy", "os=allow", "--pin", "246810")
            assert (status, json.loads(output)["error"]) == (1, "bad_policy")
            status, output = await run("policy", "idle_s=60", "--pin", "1111")
            assert (status, json.loads(output)["error"]) == (1, "wrong_pin")
    assert invoke("policy", "idle_s", "--pin", "1", "--state", state)[0] == 2


async def test_files_that_others_could_read_are_made_private_and_named(tmp_path: Path) -> None:
    async with portal(tmp_path / "gate", AUTHORITY) as served:
        state = enrolled(tmp_path / "state", AUTHORITY, served.gate.port)
        (state / "provision.json").chmod(0o644)
        with process(state, errors=tmp_path / "log"):
            await hellos(served, 1)
            modes = {p.name: p.stat().st_mode & 0o077 for p in state.iterdir() if p.is_file()}

        assert set(modes.values()) == {0}
        assert f"other users could read {state}/provision.json" in (tmp_path / "log").read_text()


async def chain(folder: Path, entries: int) -> audit.AuditLog:
    store = Store(folder / "agent.db")
    outbox = Outbox(store, Clock())
    await outbox.open()
    log = audit.AuditLog(store, outbox, Clock(), device=DEVICE, key=SERVER_AUDIT_KEY)
    await log.open()
    for _each in range(entries):
        await log.record("test:entry", actor="agent", outcome=Outcome.ALLOWED)
    await store.close()
    return log


async def test_audit_verify(tmp_path: Path) -> None:
    """R-ACC-10: verifiable at the injector by command, whether or not the agent runs."""
    log = await chain(tmp_path, 3)
    status, output = invoke("audit", "verify", "--state", tmp_path, "-o", "json")
    assert log.head is not None
    assert (status, json.loads(output)) == (
        0,
        {"good": True, "entries": 3, "head": log.head.hash},
    )
    head = tmp_path / "head.json"
    import msgspec

    head.write_bytes(msgspec.json.encode(log.head))
    store = Store(tmp_path / "agent.db")
    await store.write(lambda db: db.execute("DELETE FROM audit WHERE idx = 2"))
    await store.close()
    assert invoke("audit", "verify", "--state", tmp_path)[0] == 0
    status, output = invoke("audit", "verify", "--state", tmp_path, "--head", head, "-o", "json")
    assert (status, json.loads(output)["error"]) == (7, "bad_chain")
    assert "entry 2" in output
    head.write_text("{}")
    assert invoke("audit", "verify", "--state", tmp_path, "--head", head)[0] == 2
    assert invoke("audit", "verify", "--state", tmp_path / "none")[0] == 2


async def test_an_enrolment_that_fails_has_its_own_statuses(tmp_path: Path, free_port: int) -> None:
    async def enrol() -> tuple[int, Any]:
        status, output = await asyncio.to_thread(
            invoke, "enrol", "--state", tmp_path / "state", "-o", "json"
        )
        return status, json.loads(output)["error"]

    assert await enrol() == (2, "state")
    provision(tmp_path / "state", AUTHORITY, port=free_port)
    assert await enrol() == (4, "network")
    refusing = EnrolmentServer(AUTHORITY, port=free_port, answer=lambda claim: (403, b"{}"))
    async with refusing.serving():
        assert await enrol() == (6, "enrolment_refused")


# --- the site's network --------------------------------------------------------------------------


def test_the_proxy_is_set_shown_and_cleared_without_an_agent(tmp_path: Path) -> None:
    """R-CON-7: the password comes by standard input or a prompt, and is never shown again."""
    state = enrolled(tmp_path, AUTHORITY, 1)
    run = CliRunner().invoke(
        main.main,
        ["proxy", "proxy.example:3128", "--user", "ct2", "--state", str(state), "-o", "json"],
        input="s3cret\n",
    )
    shown = {"proxy": "proxy.example:3128", "proxy_user": "ct2", "up_bytes_s": None}
    assert run.exit_code == 0
    assert json.loads(run.output) == shown
    assert json.loads((state / "network.json").read_bytes())["proxy"]["password"] == "s3cret"
    status, output = invoke("proxy", "--state", state)
    assert status == 0
    assert "s3cret" not in output
    assert "proxy.example:3128" in output
    assert invoke("proxy", "off", "--state", state)[0] == 0
    assert json.loads((state / "network.json").read_bytes())["proxy"] is None


def test_a_proxy_that_cannot_be_is_refused(tmp_path: Path) -> None:
    state = enrolled(tmp_path, AUTHORITY, 1)
    status, output = invoke("proxy", "http://proxy", "--state", state, "-o", "json")
    assert status == 2
    assert json.loads(output)["error"] == "state"
    assert not (state / "network.json").exists()


def test_the_cap_is_set_shown_and_lifted(tmp_path: Path) -> None:
    state = enrolled(tmp_path, AUTHORITY, 1)
    status, output = invoke("bandwidth", "64000", "--state", state, "-o", "json")
    assert (status, json.loads(output)["up_bytes_s"]) == (0, 64_000)
    assert json.loads(invoke("bandwidth", "--state", state, "-o", "json")[1])["up_bytes_s"] == 64000
    assert invoke("bandwidth", "off", "--state", state)[0] == 0
    assert json.loads((state / "network.json").read_bytes())["up_bytes_s"] is None
    for wrong in ("fast", "-1", "10"):
        assert invoke("bandwidth", "--state", state, "--", wrong)[0] == 2
    status, output = invoke("bandwidth", "-5", "--state", state)
    assert status == 2
    assert "from 4096" in output


def test_it_speaks_the_language_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-ASR-4: of the option, else the injector's, else the environment's."""
    state = enrolled(tmp_path, AUTHORITY, 1)
    (state / "driver.json").write_text("{}")
    wrong = ("proxy", "proxy.example:0", "--state", state)
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    assert "must be a number" in invoke(*wrong)[1]
    monkeypatch.setenv("LANG", "fr_CA.UTF-8")
    assert "doit être un nombre" in invoke(*wrong)[1]
    assert "must be a number" in invoke("--language", "en", *wrong)[1]
    (state / "driver.json").write_text('{"language": "en"}')
    assert "must be a number" in invoke(*wrong)[1]
    assert "doit être un nombre" in invoke("--language", "fr", *wrong)[1]
    i18n.use("en")


async def test_beside_an_agent_of_another_language_it_answers_in_ones_own(tmp_path: Path) -> None:
    async with portal(tmp_path / "gate", AUTHORITY) as served:
        state = enrolled(tmp_path / "state", AUTHORITY, served.gate.port)
        with process(state, errors=tmp_path / "log"):
            await hellos(served, 1)
            command = ("--language", "fr", "proxy", "proxy.example:0", "--state", state)
            status, output = await asyncio.to_thread(invoke, *command)
    assert status == 2
    assert "doit être un nombre" in output


async def test_beside_an_agent_the_proxy_is_set_through_it(tmp_path: Path) -> None:
    async with portal(tmp_path / "gate", AUTHORITY) as served, HttpProxy().serving() as port:
        state = enrolled(tmp_path / "state", AUTHORITY, served.gate.port)
        with process(state, errors=tmp_path / "log"):
            await hellos(served, 1)
            command = ("proxy", f"127.0.0.1:{port}", "--state", state)
            assert (await asyncio.to_thread(invoke, *command))[0] == 0
            await hellos(served, 2)
        assert str(port) not in (tmp_path / "log").read_text()
