"""Local commands: one JSON object a line, our own user only, bounded."""

import asyncio
import json
import os
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent import control, posix
from agent.control import Control
from agent.errors import ControlError, NotRunning, StateError


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Control]:
    made = Control()
    made.register("echo", lambda args: {"said": args.get("word")})
    task = asyncio.create_task(made.serve(folder / control.SOCKET))
    while not await asyncio.to_thread(answers, folder):  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def answers(folder: Path) -> bool:
    try:
        posix.connect(folder / control.SOCKET, 1).close()
    except OSError:
        return False
    return True


async def call(folder: Path, op: str, **fields: Any) -> dict[str, Any]:
    return await asyncio.to_thread(control.call, folder, op, **fields)


async def raw(folder: Path, line: bytes) -> dict[str, Any]:
    reader, writer = await asyncio.open_unix_connection(str(folder / control.SOCKET))
    writer.write(line)
    writer.write_eof()
    answer = json.loads(await reader.readline())
    writer.close()
    await writer.wait_closed()
    return answer


async def test_ask_and_answer_over_a_private_socket(tmp_path: Path) -> None:
    async with serving(tmp_path):
        assert await call(tmp_path, "echo", word="é") == {"said": "é"}
        path = tmp_path / control.SOCKET
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_ISSOCK(path.stat().st_mode)
    assert not path.exists()
    with pytest.raises(NotRunning, match="patency-agent run"):
        await call(tmp_path, "echo")


async def test_a_path_longer_than_a_sockets_address(tmp_path: Path) -> None:
    folder = tmp_path / ("long-" * 20) / ("longer-" * 20)
    folder.mkdir(parents=True)
    assert len(str(folder / control.SOCKET)) > 200
    async with serving(folder):
        assert await call(folder, "echo", word="x") == {"said": "x"}


async def test_a_socket_left_over_by_a_crash_is_replaced(tmp_path: Path) -> None:
    left = posix.listen(tmp_path / control.SOCKET)
    left.close()
    with pytest.raises(NotRunning):
        await call(tmp_path, "echo")
    async with serving(tmp_path):
        assert await call(tmp_path, "echo", word="x")


async def test_a_handler_refuses_with_a_code_and_a_text(tmp_path: Path) -> None:
    async def refuse(_args: control.Args) -> control.Result:
        await asyncio.sleep(0)
        raise ControlError("wrong_pin", "two tries left")

    def broken(_args: control.Args) -> control.Result:
        raise KeyError("secret")

    async with serving(tmp_path) as served:
        served.register("refuse", refuse)
        served.register("broken", broken)
        with pytest.raises(ControlError, match="two tries left") as caught:
            await call(tmp_path, "refuse")
        assert caught.value.reason == "wrong_pin"
        with pytest.raises(ControlError) as caught:
            await call(tmp_path, "broken")
        assert caught.value.reason == "internal"
        assert "secret" not in str(caught.value)
        assert await call(tmp_path, "echo", word="still here")


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"{\n", "malformed"),
        (b"\xff\xfe\n", "malformed"),
        (b"[" * 100_000 + b"\n", "malformed"),
        (b"[]\n", "malformed"),
        (b'{"op": 3}\n', "malformed"),
        (b'{"op": "nonsense\\n\\u001b[31m"}\n', "unknown_op"),
        (b'{"op": "' + b"x" * 300_000 + b'"}\n', "too_long"),
    ],
    ids=["cut", "binary", "deep", "list", "number", "unknown", "long"],
)
async def test_bad_requests_get_a_clear_answer(tmp_path: Path, line: bytes, error: str) -> None:
    async with serving(tmp_path):
        answer = await raw(tmp_path, line)
        assert (answer["ok"], answer["error"]) == (False, error)
        assert answer["detail"].isprintable()
        assert await call(tmp_path, "echo", word="still here")


async def test_another_user_is_turned_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent's socket is for its own user: a session's process has another uid (THREATS)."""
    async with serving(tmp_path):
        monkeypatch.setattr(posix, "peer_is_us", lambda connection: False)
        with pytest.raises(NotRunning):
            await call(tmp_path, "echo")


@pytest.mark.skipif(os.getuid() != 0, reason="becoming another user takes root")
async def test_the_kernel_says_who_is_at_the_other_end(tmp_path: Path) -> None:
    import socket

    server = posix.listen(tmp_path / "s")
    (tmp_path / "s").chmod(0o666)
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)
    child = os.fork()
    if child == 0:  # pragma: no cover
        os.setuid(65534)
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(tmp_path / "s"))
                client.recv(1)
        finally:
            os._exit(0)
    try:
        server.settimeout(5)
        connection, _address = server.accept()
        assert not posix.peer_is_us(connection)
        connection.close()
    finally:
        os.waitpid(child, 0)  # noqa: ASYNC222
        server.close()


async def test_clients_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "MAX_CLIENTS", 3)
    async with serving(tmp_path):
        pairs = [
            await asyncio.open_unix_connection(str(tmp_path / control.SOCKET)) for _each in range(4)
        ]
        ends = [asyncio.ensure_future(reader.read(1)) for reader, _writer in pairs]
        await asyncio.wait(ends, timeout=10, return_when=asyncio.FIRST_COMPLETED)
        done, _pending = await asyncio.wait(ends, timeout=0.1)  # and no other
        assert [task.result() for task in done] == [b""]
        for task in ends:
            task.cancel()
        for _reader, writer in pairs:
            writer.close()


async def test_watching_pushes_until_the_client_leaves(tmp_path: Path) -> None:
    left = asyncio.Event()

    async def count(args: control.Args) -> AsyncIterator[control.Result]:
        try:
            for number in range(1000):
                yield {"number": number}
                await asyncio.sleep(0.01)
        finally:
            left.set()

    def three() -> list[int]:
        seen = []
        for result in control.watch(tmp_path, "count"):
            seen.append(result["number"])
            if len(seen) == 3:
                return seen
        return seen

    async with serving(tmp_path) as served:
        served.register_watch("count", count)
        assert await asyncio.to_thread(three) == [0, 1, 2]
        async with asyncio.timeout(5):
            await left.wait()


async def test_watching_what_refuses_raises(tmp_path: Path) -> None:
    async def refuse(args: control.Args) -> AsyncIterator[control.Result]:
        raise ControlError("busy", "not now")
        yield {}

    async with serving(tmp_path) as served:
        served.register_watch("refuse", refuse)
        with pytest.raises(ControlError, match="not now"):
            await asyncio.to_thread(lambda: next(control.watch(tmp_path, "refuse")))


async def test_one_process_for_a_state_directory(tmp_path: Path) -> None:
    with (
        posix.only_process(tmp_path / "agent.lock"),
        pytest.raises(StateError, match="Another agent"),
        posix.only_process(tmp_path / "agent.lock"),
    ):
        pass
    with posix.only_process(tmp_path / "agent.lock"):
        pass


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.write_text("x")])
def test_a_state_directory_that_is_none(tmp_path: Path, make: Callable[[Path], Any]) -> None:
    make(tmp_path / "state")
    with pytest.raises(StateError):
        posix.check_private_dir(tmp_path / "state")


def test_a_state_directory_is_closed_to_others(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "provision.json").write_text("{}")
    posix.check_private_dir(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_a_directory_of_everybodys_is_left_as_it_is(tmp_path: Path) -> None:
    """`--state /tmp`, typed by root, must not take /tmp from all others."""
    tmp_path.chmod(0o1777)
    with pytest.raises(StateError, match="no injector's state directory"):
        posix.check_private_dir(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o1777
