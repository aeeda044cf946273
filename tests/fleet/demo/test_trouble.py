"""The demo says why an injector is not online, in its agent's words."""

import asyncio
import json
from pathlib import Path

import pytest

from fleet.demo import trouble, words


def log(folder: Path, *lines: object) -> Path:
    path = folder / "agent.log"
    path.write_text(
        "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
    )
    return path


def entry(agent: str, level: str, message: str) -> dict[str, str]:
    return {"agent": agent, "level": level, "message": message}


def test_of_several_in_one_process_the_one_that_is_meant(tmp_path: Path) -> None:
    path = log(
        tmp_path,
        entry("CM-1", "error", "the agent stopped: its key is damaged"),
        entry("CD-2", "error", "another's"),
        entry("CM-1", "info", "connection: online"),
    )
    assert trouble.last_words(path, "CM-1") == "the agent stopped: its key is damaged"
    assert trouble.last_words(path) == "another's"


def test_a_process_that_ended_said_why_last(tmp_path: Path) -> None:
    path = log(tmp_path, entry("CM-1", "error", "earlier"), "device.key is damaged", "")
    assert trouble.last_words(path) == "device.key is damaged"
    assert trouble.last_words(tmp_path / "none") == ""


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"ok": True, "result": {"trouble": "The name is not known."}}, "The name is not known."),
        ({"ok": True, "result": {"trouble": "", "connection": "connecting"}}, "connecting"),
    ],
)
async def test_an_agent_that_runs_is_asked(
    tmp_path: Path, answer: dict[str, object], said: str
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(json.dumps(answer).encode() + b"\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(serve, tmp_path / "control.sock")
    async with server:
        assert said in await trouble.why(tmp_path, tmp_path / "none")


async def test_an_agent_that_does_not_run_has_a_log(tmp_path: Path) -> None:
    path = log(tmp_path, entry(tmp_path.name, "error", "its store is damaged"))
    assert await trouble.why(tmp_path, path) == "its store is damaged"
    assert await trouble.why(tmp_path, tmp_path / "none") == "its agent does not answer"


def test_the_reasons_are_shown_with_a_way_out(tmp_path: Path) -> None:
    data = tmp_path / "my demo"
    said = words.waiting({"CD-190442": "its key is damaged"}, data)
    assert "CD-190442: its key is damaged" in said
    assert f"rm -r '{data}'" in said
