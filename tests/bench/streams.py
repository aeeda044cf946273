"""A sealed byte stream through the whole path, beside `ssh -R` through a private sshd.

    ours    program → `patency forward` → websocket → portal (hub, gate) → TLS → agent → service
    peer    program → sshd → ssh -R → service

Every box is a process of its own and on this machine, so that two cores carry five processes of
ours and four of the peer's; program and service are the same for both. The figures of ours and the
peer's are taken in turns. *Up* is from the injector to the specialist. An echo is 64 bytes.
"""

import contextlib
import json
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.agent.support import provision
from tests.bench import Goal, Row
from tests.bench import _stream_service as program
from tests.tls import Authority

SIZE = 192 * 1024 * 1024
ROUNDS = 3
ECHOES = 1000
COMMANDS = 300
CIPHERS = {"ssh -R": None, "ssh -R aes128-gcm": "aes128-gcm@openssh.com"}
STREAM = Goal(floor=0.35, aim=0.7, ratio=True)
P50 = Goal(floor=3, aim=1.5, ratio=True, less=True)
P99 = Goal(floor=3, aim=2, ratio=True, less=True)
COMMAND = Goal(floor=10, aim=5, less=True)

Process = subprocess.Popen[str]


@contextlib.contextmanager
def process(*command: object) -> Iterator[Process]:
    process = subprocess.Popen(
        [*map(str, command)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def line(process: Process) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"{process.args} ended"
    return line.strip()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


# --- ours ----------------------------------------------------------------------------------------


@dataclass
class Sealed:
    """The sealed path: the local port, and the processes that can be asked."""

    port: int
    portal: Process
    agent: Process

    def commands(self) -> list[float]:
        """Seconds from the portal to the agent, of each command."""
        assert self.portal.stdin is not None
        self.portal.stdin.write(f"commands {COMMANDS}\n")
        self.portal.stdin.flush()
        assert line(self.portal) == "sent"
        time.sleep(0.5)
        self.agent.send_signal(signal.SIGUSR1)
        found: list[float] = json.loads(line(self.agent))
        assert len(found) == COMMANDS, f"{COMMANDS - len(found)} commands were lost"
        return found


def _state(folder: Path, found: dict[str, Any]) -> Path:
    """A state directory of an injector that the portal knows."""
    authority = Authority()
    bundle = provision(folder, authority)
    bundle["anchors"] |= {name: found[name] for name in ("server_ca", "device_root")}
    (folder / "provision.json").write_text(json.dumps(bundle))
    (folder / "device.key").write_bytes(Path(found["key"]).read_bytes())
    (folder / "device.pem").write_bytes(Path(found["certificate"]).read_bytes())
    servers = [{"host": "localhost", "port": found["gate"]}]
    (folder / "servers.json").write_text(json.dumps(servers))
    (folder / "found.json").write_text(json.dumps(found))
    for path in folder.iterdir():
        path.chmod(0o600)
    return folder


@contextlib.contextmanager
def sealed(
    folder: Path, service: int, between: Callable[[int], int] = lambda port: port
) -> Iterator[Sealed]:
    """`between` gives the port to use instead of one of the portal's: a relay's."""
    ends = (sys.executable, "-m", "tests.bench._stream_ends")
    data = folder / "portal"
    data.mkdir()
    with process(*ends, "portal", data) as portal:
        found = json.loads(line(portal))
        found |= {name: between(found[name]) for name in ("gate", "web")}
        state = _state(folder / "agent", found)
        with (
            process(*ends, "agent", state, service) as agent,
            process(*ends, "client", json.dumps({**found, "folder": str(folder)})) as client,
        ):
            port = int(line(client))
            _wait_for(port)
            yield Sealed(port, portal, agent)


def _wait_for(port: int) -> None:
    """Until something passes: the agent may still be on its way."""
    deadline = time.monotonic() + 20
    while True:
        try:
            program.echoes(port, 1, 0)
        except (OSError, AssertionError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


# --- the peer ------------------------------------------------------------------------------------


@contextlib.contextmanager
def _ssh(folder: Path, service: int, cipher: str | None) -> Iterator[int]:
    """The port at which an sshd offers the service through `ssh -R`."""
    folder.mkdir()
    for key in ("host", "user"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True
        )
    (folder / "authorised").write_bytes((folder / "user.pub").read_bytes())
    listening, offered = free_port(), free_port()
    (folder / "config").write_text(
        f"ListenAddress 127.0.0.1:{listening}\nHostKey {folder}/host\nPidFile {folder}/pid\n"
        f"AuthorizedKeysFile {folder}/authorised\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nPermitRootLogin prohibit-password\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    options = ["-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={folder}/known"]
    options += ["-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "-o", "ExitOnForwardFailure=yes"]
    options += ["-c", cipher] if cipher else []
    with process("/usr/sbin/sshd", "-D", "-f", folder / "config"):
        _wait_to_listen(listening)
        target = f"{offered}:127.0.0.1:{service}"
        with process(
            "ssh", "-N", "-i", folder / "user", *options, "-p", listening, "-R", target, "127.0.0.1"
        ):
            _wait_for(offered)
            yield offered


def _wait_to_listen(port: int) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError("sshd did not start")


# --- the figures ---------------------------------------------------------------------------------


def _megabytes(move: Callable[[int, int], float], ports: dict[str, int]) -> dict[str, float]:
    """MB/s of each, in turns; medians."""
    found: dict[str, list[float]] = {name: [] for name in ports}
    for _ in range(ROUNDS):
        for name, port in ports.items():
            found[name].append(move(port, SIZE) / 1e6)
    return {name: statistics.median(all_) for name, all_ in found.items()}


def _p50_p99(seconds: list[float]) -> tuple[float, float]:
    ordered = sorted(each * 1000 for each in seconds)
    return ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]


def _saturated(port: int, work: Callable[[], list[float]]) -> list[float]:
    """Do the work while a stream comes up as fast as it can."""
    over = threading.Event()

    def pull() -> None:
        while not over.is_set():
            program.away(port, 16 * 1024 * 1024)

    thread = threading.Thread(target=pull)
    thread.start()
    try:
        time.sleep(0.5)
        return work()
    finally:
        over.set()
        thread.join()


def _rows(ports: dict[str, int], path: Sealed) -> Iterator[Row]:
    for what, move in (("down", program.towards), ("up", program.away)):
        speeds = _megabytes(move, ports)
        for peer in CIPHERS:
            goal = STREAM if CIPHERS[peer] is None else None
            yield Row(
                f"sealed stream, {what}", speeds["ours"], "MB/s", peer, speeds[peer], goal=goal
            )
    echoes = {name: _p50_p99(program.echoes(port, ECHOES, 0.002)) for name, port in ports.items()}
    for at, (name, goal) in enumerate((("p50", P50), ("p99", P99))):
        for peer in CIPHERS:
            yield Row(
                f"echo, {name}", echoes["ours"][at], "ms", peer, echoes[peer][at],
                goal=goal if CIPHERS[peer] is None else None,
            )  # fmt: skip
    idle, busy = _p50_p99(path.commands()), _p50_p99(_saturated(path.port, path.commands))
    yield Row("command to the agent, p99", idle[1], "ms", note=f"p50 {idle[0]:.1f}; nothing else")
    yield Row(
        "command p99 while a stream saturates",
        busy[1],
        "ms",
        goal=COMMAND,
        note=f"p50 {busy[0]:.1f}",
    )


def run() -> list[Row]:
    here = Path("var")
    here.mkdir(exist_ok=True)
    service = free_port()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=here, prefix="bench-")))
        folder = folder.absolute()
        line(
            stack.enter_context(
                process(sys.executable, "-m", "tests.bench._stream_service", service)
            )
        )
        path = stack.enter_context(sealed(folder, service))
        ports = {"ours": path.port}
        for number, (name, cipher) in enumerate(CIPHERS.items()):
            ports[name] = stack.enter_context(_ssh(folder / f"ssh{number}", service, cipher))
        return list(_rows(ports, path))
