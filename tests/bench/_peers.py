"""What the gate stands beside: mosquitto, and amqtt without a gate, with the same certificates.

Each serves devices over TLS on `port` and one more client over plain TCP on `plain`: the subscriber
behind a broker is where its messages are used, as the portal's handler is behind our gate.
"""

import asyncio
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MOSQUITTO = "/usr/sbin:/usr/bin:/usr/local/sbin"


@dataclass(frozen=True, slots=True)
class Peer:
    pid: int
    port: int
    plain: int


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _trust(folder: Path) -> Path:
    path = folder / "device-ca.pem"
    authorities = ("device-root.pem", "device-intermediate.pem")
    path.write_bytes(b"".join((folder / name).read_bytes() for name in authorities))
    return path


@contextmanager
def mosquitto(folder: Path) -> Iterator[Peer | None]:
    """`folder` is what `Authority.write` left. None when it is not installed."""
    program = shutil.which("mosquitto", path=MOSQUITTO)
    if program is None:
        yield None
        return
    port, plain = _free_port(), _free_port()
    configuration = folder / "mosquitto.conf"
    configuration.write_text(
        f"listener {port} 127.0.0.1\ncafile {_trust(folder)}\ncertfile {folder / 'server.pem'}\n"
        f"keyfile {folder / 'server.key'}\nrequire_certificate true\nallow_anonymous true\n"
        f"listener {plain} 127.0.0.1\nallow_anonymous true\n"
        "log_dest none\nset_tcp_nodelay true\nuser root\n"
    )
    with _running([program, "-c", str(configuration)], port, plain) as peer:
        yield peer


@contextmanager
def amqtt(folder: Path) -> Iterator[Peer]:
    """amqtt as it comes, in a process of its own."""
    port, plain = _free_port(), _free_port()
    _trust(folder)
    command = [sys.executable, "-m", "tests.bench._peers", str(folder), str(port), str(plain)]
    with _running(command, port, plain) as peer:
        yield peer


@contextmanager
def _running(command: list[str], port: int, plain: int) -> Iterator[Peer]:
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        _wait_for(port)
        yield Peer(process.pid, port, plain)
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(port: int) -> None:
    for _ in range(500):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise TimeoutError("the peer did not start")


async def _serve_amqtt(folder: Path, port: int, plain: int) -> None:
    from amqtt.broker import Broker

    secured = {
        "bind": f"127.0.0.1:{port}",
        "ssl": True,
        "cafile": str(folder / "device-ca.pem"),
        "certfile": str(folder / "server.pem"),
        "keyfile": str(folder / "server.key"),
    }
    broker = Broker(
        {
            "listeners": {
                "default": {"type": "tcp", "bind": f"127.0.0.1:{plain}"},
                "tls": {"type": "tcp", **secured},
            },
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {}},
        }
    )
    await broker.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve_amqtt(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
