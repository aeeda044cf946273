"""forward and shell: a local port and a terminal on sealed streams (R-ACC-5)."""

import hashlib
import json
import signal
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.wire.frames import parse
from tests.client.conftest import Command
from tests.client.portal import TestPortal
from tests.scale import scaled


class _Echo(socketserver.BaseRequestHandler):
    """Sends everything back; after the end of what comes, a last word, then its own end."""

    def handle(self) -> None:
        while data := self.request.recv(65536):
            self.request.sendall(data)
        self.request.sendall(b"<last word>")


class _Silent(socketserver.BaseRequestHandler):
    """Takes the connection and reads nothing until the test lets it."""

    gate = threading.Event()

    def handle(self) -> None:
        self.gate.wait(20)
        digest = hashlib.sha256()
        while data := self.request.recv(65536):
            digest.update(data)
        self.request.sendall(digest.hexdigest().encode())


@contextmanager
def served(handler: type[socketserver.BaseRequestHandler]) -> Iterator[int]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def echo(portal: TestPortal) -> Iterator[int]:
    with served(_Echo) as port:
        portal.services["web"] = portal.services["console"] = port
        yield port


def dial(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def read_all(connection: socket.socket) -> bytes:
    parts = []
    while data := connection.recv(65536):
        parts.append(data)
    return b"".join(parts)


def exchange(port: int, data: bytes) -> bytes:
    """Send all, end this side, and read until the other side ends."""
    with dial(port) as connection:
        sender = threading.Thread(
            target=lambda: (connection.sendall(data), connection.shutdown(socket.SHUT_WR))
        )
        sender.start()
        got = read_all(connection)
        sender.join()
    return got


@pytest.mark.usefixtures("echo")
def test_bytes_arrive_whole_and_half_close_works(
    portal: TestPortal, command: Command, session: str
) -> None:
    """R-ACC-5: nothing of the plaintext crosses the portal; EOF one way leaves the other open."""
    data = b"known plaintext " * scaled(4_000_000 // 16)
    with command.forwarding("web") as (process, port):
        for _ in range(2):  # several connections after each other
            assert exchange(port, data) == data + b"<last word>"
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    held = portal.sessions[session]
    assert sum(map(len, held.carried)) > 4 * len(data)
    assert not any(b"known" in frame for frame in held.carried)
    assert {parse(frame).session.hex() for frame in held.carried} == {session}


@pytest.mark.usefixtures("echo", "session")
def test_connections_at_the_same_time(command: Command) -> None:
    with command.forwarding("web", "--bulk") as (_, port):
        results: list[bytes] = []
        threads = [
            threading.Thread(
                target=lambda n=n: results.append(exchange(port, bytes([n]) * 100_000))
            )
            for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(results) == [bytes([n]) * 100_000 + b"<last word>" for n in range(8)]


@pytest.mark.usefixtures("session")
def test_a_reader_that_stops_stops_the_sender(portal: TestPortal, command: Command) -> None:
    """Back-pressure goes from the injector's service to the local program; nothing piles up."""
    _Silent.gate.clear()
    total = 64 * 1024 * 1024
    with served(_Silent) as service, command.forwarding("web") as (_, port):
        portal.services["web"] = service
        with dial(port) as connection:
            connection.setblocking(False)
            block, sent, quiet = bytes(256 * 1024), 0, 0
            while quiet < 15 and sent < total:
                try:
                    sent += connection.send(block)
                    quiet = 0
                except BlockingIOError:
                    quiet += 1
                    time.sleep(0.1)
            # What lies in between: socket buffers of two pairs, one window, one read.
            assert sent < total
            _Silent.gate.set()
            connection.settimeout(20)
            connection.shutdown(socket.SHUT_WR)
            want = hashlib.sha256(bytes(sent)).hexdigest().encode()
            assert read_all(connection) == want


@pytest.mark.usefixtures("session")
def test_a_service_that_is_not_there_closes_the_connection_only(
    portal: TestPortal, command: Command, echo: int
) -> None:
    with command.forwarding("web") as (process, port):
        portal.services["web"] = 1  # nothing listens there
        with pytest.raises(ConnectionResetError), dial(port) as connection:
            connection.recv(1)
        portal.services.pop("web")  # the injector refuses
        with pytest.raises(ConnectionResetError), dial(port) as connection:
            connection.recv(1)
        portal.services["web"] = echo
        assert exchange(port, b"still here") == b"still here<last word>"
        process.terminate()
        said = process.communicate(timeout=10)[1].decode()
    assert "Nothing listens" in said
    assert "does not cover" in said


@pytest.mark.usefixtures("echo")
def test_a_local_program_that_vanishes_is_told_to_the_injector(
    portal: TestPortal, command: Command, session: str
) -> None:
    held = portal.sessions[session]
    with command.forwarding("web") as (_, port):
        connection = dial(port)
        connection.sendall(b"x")
        assert connection.recv(1) == b"x"
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()  # a reset, not an end
        wait_until(lambda: held.mux is not None and held.mux.streams == ())
    assert "RESET" in portal.stream_types(held)


def wait_until(true: Any, limit_s: float = 10) -> None:
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.usefixtures("echo")
def test_the_end_of_the_session_ends_the_command(
    portal: TestPortal, command: Command, session: str
) -> None:
    with command.forwarding("web") as (process, port):
        connection = dial(port)
        connection.sendall(b"x")
        assert connection.recv(1) == b"x"
        portal.call(portal.end, portal.sessions[session], "stopped_at_panel")
        assert process.wait(10) == 8
        assert "stopped at the injector's panel" in process.stderr.read().decode()
        with pytest.raises(OSError):
            connection.recv(1)
            dial(port).close()
        connection.close()


@pytest.mark.usefixtures("echo")
def test_a_broken_link_is_made_again(portal: TestPortal, command: Command, session: str) -> None:
    """R-CON-5: a local connection does not notice; nothing is lost, doubled or out of order."""
    held = portal.sessions[session]
    data = bytes(range(256)) * scaled(64_000)
    want = data + b"<last word>"
    with command.forwarding("web") as (_, port), dial(port) as connection:
        got = bytearray()

        def send() -> None:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        for part in range(1, 5):
            while len(got) < part * len(want) // 5:
                got += connection.recv(65536)
            portal.call(portal.drop_websockets, held)
        got += read_all(connection)
        sender.join()
        assert hashlib.sha256(got).digest() == hashlib.sha256(want).digest()
        assert exchange(port, b"again") == b"again<last word>"
    assert "RESUME" in portal.stream_types(held)


@pytest.mark.usefixtures("echo")
def test_a_shell_goes_on_after_the_portal_was_away(
    portal: TestPortal, command: Command, session: str
) -> None:
    """R-CON-5: what was typed meanwhile arrives; the person is told once of a long break."""
    held = portal.sessions[session]
    with command.started("shell", "S-1001") as process:
        process.stdin.write(b"before ")
        process.stdin.flush()
        assert process.stdout.read(7) == b"before "
        portal.turn_away = True
        portal.call(portal.drop_websockets, held)
        process.stdin.write(b"meanwhile ")
        process.stdin.flush()
        said = ""
        while "The connection is lost" not in said:  # once it has lasted
            line = process.stderr.readline().decode()
            assert line, f"it ended: {said}"
            said += line
        time.sleep(1)
        portal.turn_away = False
        assert process.stdout.read(10) == b"meanwhile "
        process.stdin.close()
        assert process.stdout.read() == b"<last word>"
        assert process.wait(10) == 0
        said += process.stderr.read().decode()
        assert said.count("The connection is lost") == 1
        assert said.count("Connected again") == 1


@pytest.mark.usefixtures("echo")
def test_no_process_repeats_a_stream_number(
    portal: TestPortal, command: Command, session: str
) -> None:
    """A stream number is half of a nonce: each process takes an epoch of its own, even at once."""
    file = command.folder / "sessions" / f"{session}.json"
    with command.forwarding("web") as (_, first), command.forwarding("web") as (_, second):
        for _ in range(2):
            for port in (first, second):
                assert exchange(port, b"x") == b"x<last word>"
    with command.forwarding("web") as (_, third):
        assert exchange(third, b"x") == b"x<last word>"
    opened = [
        (header.stream, header.number)
        for frame in portal.sessions[session].carried
        if (header := parse(frame)).type.name == "OPEN"
    ]
    assert len(set(opened)) == len(opened) == 5
    assert {stream >> 16 for stream, _ in opened} == {1, 2, 3}
    assert json.loads(file.read_text())["epoch"] == 3


def test_what_forward_cannot_do_is_said(portal: TestPortal, command: Command, session: str) -> None:
    assert "covers web, console" in command("forward", "S-1001", "ssh", 0, expect=4).stderr.decode()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with command.started("forward", "S-1001", "web", port) as process:
            assert process.wait(10) == 1
            assert f"Port {port}" in process.stderr.read().decode()
    portal.sessions[session].state = "presence"
    said = command("forward", session, "web", 0, expect=4).stderr.decode()
    assert "waits for approval" in said
    assert f"patency answer {session}" in said


@pytest.mark.usefixtures("echo", "session")
def test_a_shell_is_standard_input_and_output(command: Command, tmp_path: Path) -> None:
    with command.started("shell", "S-1001") as process:
        out, err = process.communicate(b"help\n" * 1000, timeout=20)
        assert (process.returncode, err) == (0, b"")
        assert out == b"help\n" * 1000 + b"<last word>"


@pytest.mark.usefixtures("echo")
def test_a_shell_says_why_it_ended(portal: TestPortal, command: Command, session: str) -> None:
    with command.started("shell", "S-1001") as process:
        process.stdin.write(b"x")
        process.stdin.flush()
        assert process.stdout.read(1) == b"x"
        portal.call(portal.end, portal.sessions[session], "ended_by_hospital")
        assert process.wait(10) == 8
        assert "The hospital ended it" in process.stderr.read().decode()
    portal.services.clear()
    portal.sessions[session].state = "active"
    with command.started("shell", session) as process:
        assert process.wait(10) == 3
        assert "does not cover" in process.stderr.read().decode()


@pytest.mark.usefixtures("echo")
def test_frames_made_up_by_the_portal_change_nothing(
    portal: TestPortal, command: Command, session: str
) -> None:
    """R-ACC-5: what the injector did not seal is as if it had not come, also on a live stream."""
    held = portal.sessions[session]
    with command.forwarding("web") as (_, port), dial(port) as connection:
        connection.sendall(b"x")
        assert connection.recv(1) == b"x"
        real = next(frame for frame in held.carried if parse(frame).type.name == "DATA")
        bent = real[:-1] + bytes([real[-1] ^ 1])
        for frame in (b"", b"no frame", bytes(100), real, bent, real[:40] + bytes(16)):
            portal.call(held.sockets[-1].put_nowait, frame)
        connection.sendall(b"y")
        assert connection.recv(1) == b"y"
