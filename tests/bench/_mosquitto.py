"""The peer of the gate: a mosquitto with the same certificates, when it is installed."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Peer:
    pid: int
    port: int


@contextmanager
def running(folder: Path) -> Iterator[Peer | None]:
    """`folder` is what `Authority.write` left. None when it is not installed."""
    program = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    if program is None:
        yield None
        return
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    trust = folder / "device-ca.pem"
    authorities = ("device-root.pem", "device-intermediate.pem")
    trust.write_bytes(b"".join((folder / name).read_bytes() for name in authorities))
    configuration = folder / "mosquitto.conf"
    configuration.write_text(
        f"listener {port} 127.0.0.1\ncafile {trust}\ncertfile {folder / 'server.pem'}\n"
        f"keyfile {folder / 'server.key'}\nrequire_certificate true\nallow_anonymous true\n"
        "log_dest none\nset_tcp_nodelay true\nuser root\n"
    )
    process = subprocess.Popen([program, "-c", str(configuration)], stderr=subprocess.DEVNULL)
    try:
        _wait_for(port)
        yield Peer(process.pid, port)
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(port: int) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise TimeoutError("mosquitto did not start")
