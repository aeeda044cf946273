"""The contained console and the status page: all that `console` and `web` reach (R-ACC-6, 8)."""

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent import console
from agent.control import Control
from agent.errors import ControlError, StateError
from agent.wire.catalogue import ClinicalState


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Injector:
    """A state directory whose control socket answers as an agent's would."""

    state: Path
    ports: dict[str, int]
    asked: list[str]
    shown: dict[str, Any]

    async def talk(self, *lines: str) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.ports["console"])
        writer.write("".join(f"{line}\n" for line in lines).encode())
        writer.write_eof()
        try:
            async with asyncio.timeout(10):
                return (await reader.read()).decode()
        finally:
            writer.close()
            await writer.wait_closed()

    async def get(self, request: str, host: str = "127.0.0.1:{web}") -> tuple[str, str]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.ports["web"])
        named = f"Host: {host.format(**self.ports)}\r\n"
        writer.write(f"{request}\r\n{named}\r\n".encode())
        try:
            async with asyncio.timeout(10):
                head, _blank, body = (await reader.read()).decode().partition("\r\n\r\n")
        finally:
            writer.close()
            await writer.wait_closed()
        return head, body


@pytest.fixture
async def injector(tmp_path: Path) -> AsyncIterator[Injector]:
    async with running(tmp_path) as made:
        yield made


@asynccontextmanager
async def running(folder: Path, *, agent: bool = True) -> AsyncIterator[Injector]:
    ports = {"ssh": 1, "console": free_port(), "web": free_port()}
    (folder / "driver.json").write_text(json.dumps({"driver": "simulator", "services": ports}))
    (folder / "provision.json").write_text(json.dumps({"serial": "S-1", "product_line": "ct-dual"}))
    event = {"code": 103, "name": "occlusion suspected", "priority": "M", "syringe": "a"}
    shown = {
        "serial": "S-1", "product_line": "ct-dual", "software_version": "1.2.3", "state": "idle",
        "online": True, "conditions": [{**event, "value": 2040.5}],
        "faults": ["occlusion", "stall", "idle"], "values": {"fan_rpm": 2500.0},
        "events": [{"at": "2026-01-01T00:00:00+00:00", "phase": "raised", **event, "value": None}],
    }  # fmt: skip
    made = Injector(folder, ports, [], shown)

    def simulate(args: Any) -> dict[str, Any]:
        made.asked.append(args["fault"])
        if args["fault"] not in shown["faults"]:
            raise ControlError("driver", "There is no such fault.")
        return {"state": ClinicalState.FAULT.value}

    control = Control()
    control.register("console-view", lambda args: shown)
    control.register("simulate", simulate)
    tasks = [asyncio.create_task(console.serve([folder]))]
    if agent:
        tasks.append(asyncio.create_task(control.serve(folder / "control.sock")))
    for name in ("console", "web"):
        await until_open(ports[name])
    try:
        yield made
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until_open(port: int) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                _reader, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                await writer.wait_closed()
                await asyncio.sleep(0.05)  # until the server has noticed
                return


async def test_a_newcomer_finds_the_way(injector: Injector) -> None:
    said = await injector.talk("help", "status", "faults", "events", "inject occlusion", "clear",
                               "exit")  # fmt: skip
    assert "ct-dual S-1. Type help." in said
    assert "inject FAULT" in said
    assert "fan_rpm" in said
    assert "103 occlusion suspected (M) a 2040.5" in said
    assert "To inject: occlusion, stall" in said
    assert "2026-01-01T00:00:00+00:00  raised" in said
    assert said.count("Done. State: fault.") == 2
    assert said.endswith("Good-bye.\n")
    assert injector.asked == ["occlusion", "idle"]


async def test_nothing_wrong_and_no_events_are_said(injector: Injector) -> None:
    injector.shown |= {"conditions": [], "events": []}
    said = await injector.talk("faults", "events")
    assert "Wrong now:\n  nothing\nTo inject" in said
    assert "none in the last hour" in said


@pytest.mark.parametrize(
    "line",
    ["sh", "/bin/sh", "!ls", "help; ls", "$(id)", "`id`", "status | cat /etc/passwd", "arm",
     "start", "\x1b[2J", "inject", "inject a b", "é"],
)  # fmt: skip
async def test_there_is_no_way_out_and_nothing_is_repeated(injector: Injector, line: str) -> None:
    said = await injector.talk(line)
    assert "There is no such command" in said or "Inject what" in said
    assert "passwd" not in said
    assert "\x1b" not in said
    assert injector.asked == []


async def test_a_refusal_is_shown(injector: Injector) -> None:
    assert "There is no such fault." in await injector.talk("inject ../../x")


async def test_a_line_without_an_end_is_cut(injector: Injector) -> None:
    said = await injector.talk("x" * 300, "help")
    assert "inject FAULT" not in said


async def test_an_agent_that_is_down_is_said_so(tmp_path: Path) -> None:
    async with running(tmp_path, agent=False) as injector:
        assert "No agent answers" in await injector.talk("status", "clear")
        assert (await injector.get("GET / HTTP/1.1"))[0].startswith("HTTP/1.1 503")


async def test_too_many_clients_are_turned_away(
    injector: Injector, monkeypatch: pytest.MonkeyPatch
) -> None:
    await injector.talk("exit")  # whoever looked whether the port is open has left
    monkeypatch.setattr(console, "MAX_CLIENTS", 1)
    reader, writer = await asyncio.open_connection("127.0.0.1", injector.ports["console"])
    await reader.readuntil(b"> ")
    other, also = await asyncio.open_connection("127.0.0.1", injector.ports["console"])
    assert await other.read() == b""
    for each in (writer, also):
        each.close()
        await each.wait_closed()


async def test_a_silent_client_is_let_go(
    injector: Injector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "IDLE_S", 0.1)
    reader, writer = await asyncio.open_connection("127.0.0.1", injector.ports["console"])
    async with asyncio.timeout(5):
        assert b"Type help" in await reader.read()
    writer.close()
    await writer.wait_closed()


async def test_the_status_page_shows_the_injector(injector: Injector) -> None:
    head, body = await injector.get("GET / HTTP/1.1")
    assert head.startswith("HTTP/1.1 200")
    assert "default-src 'none'" in head
    assert "<h1>Simulated injector ct-dual S-1</h1>" in body
    assert "103 occlusion suspected a" in body
    head, body = await injector.get("GET /status.json HTTP/1.1")
    assert json.loads(body) == injector.shown
    head, body = await injector.get("HEAD / HTTP/1.1", host="localhost")
    assert head.startswith("HTTP/1.1 200")
    assert body == ""


async def test_the_status_page_escapes(injector: Injector) -> None:
    injector.shown["serial"] = "<script>"
    _head, body = await injector.get("GET / HTTP/1.1")
    assert "<script>" not in body


@pytest.mark.parametrize(
    ("request_line", "status"),
    [("POST / HTTP/1.1", 405), ("GET /../driver.json HTTP/1.1", 404), ("nonsense", 400),
     ("GET http://elsewhere/ HTTP/1.1", 404)],
)  # fmt: skip
async def test_the_status_page_answers_nothing_else(
    injector: Injector, request_line: str, status: int
) -> None:
    head, _body = await injector.get(request_line)
    assert head.startswith(f"HTTP/1.1 {status} ")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "", "127.0.0.1.evil.example"])
async def test_a_page_elsewhere_cannot_read_it(injector: Injector, host: str) -> None:
    head, _body = await injector.get("GET / HTTP/1.1", host=host)
    assert head.startswith("HTTP/1.1 421 ")


async def test_a_port_that_is_taken_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "BIND_AGAIN_S", 0.05)
    taken = socket.create_server(("127.0.0.1", 0))
    port = taken.getsockname()[1]
    (tmp_path / "driver.json").write_text(
        json.dumps({"driver": "simulator", "services": {"web": port}})
    )
    (tmp_path / "provision.json").write_text(
        json.dumps({"serial": "S-1", "product_line": "ct-dual"})
    )
    serving = asyncio.create_task(console.serve([tmp_path]))
    await asyncio.sleep(0.1)
    taken.close()
    await until_open(port)
    os.kill(os.getpid(), signal.SIGTERM)  # its own handler: ends the serving, not the process
    async with asyncio.timeout(5):
        await serving


async def test_a_directory_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="state directory"):
        await console.serve([tmp_path / "nowhere"])
