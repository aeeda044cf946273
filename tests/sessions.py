"""Sessions over the running demo: ask, approve, forward; for end-to-end tests."""

import contextlib
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.demo import Demo, free_port


def environment(demo: Demo, url: str | None = None) -> dict[str, str]:
    """The specialist's; with `url`, a copy of the profile that goes there."""
    profile = Path(demo.info["profile"])
    if url is not None:
        copy = demo.data / "profile-elsewhere"
        copy.mkdir(mode=0o700, exist_ok=True)
        values = json.loads((profile / "profile.json").read_text())
        values |= {
            "url": url,
            "key": str(profile / values["key"]),
            "device_root": str(profile / values["device_root"]),
        }
        (copy / "profile.json").write_text(json.dumps(values))
        if not (copy / "sessions").exists():
            (copy / "sessions").symlink_to(profile / "sessions")
        profile = copy
    return {**os.environ, "PATENCY_PROFILE": str(profile)}


@contextlib.contextmanager
def asking(
    demo: Demo, device: dict[str, Any], *, level: str, service: str
) -> Iterator["subprocess.Popen[str]"]:
    """`patency request --wait` in the background."""
    process = subprocess.Popen(
        [
            demo.info["cli"], "request", device["serial"], "--level", level, "--service", service,
            "--reason", "repair", "--ticket", "T-1", "--for", "30m", "--wait", "-o", "json",
        ],
        env=environment(demo), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def approve(demo: Demo, device: dict[str, Any], *, seconds: float = 20) -> None:
    """At the injector, as soon as it asks for a person."""
    deadline = time.monotonic() + seconds
    while True:
        done = subprocess.run(
            [
                str(Path(demo.info["cli"]).with_name("patency-agent")), "approve",
                "--state", device["state_dir"], "--pin", device["pin"], "-o", "json",
            ],
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
        if done.returncode == 0:
            return
        assert time.monotonic() < deadline, done.stdout + done.stderr
        time.sleep(0.2)


def open_session(demo: Demo, device: dict[str, Any], *, level: str, service: str) -> str:
    """Ask, sign, and approve where a person must; returns the session's id."""
    with asking(demo, device, level=level, service=service) as process:
        if level == "os":
            approve(demo, device)
        out, err = process.communicate(timeout=40)
        assert process.returncode == 0, out + err
        session: str = json.loads(out)["session"]
        return session


@contextlib.contextmanager
def forward(
    demo: Demo, device: dict[str, Any], service: str, url: str | None = None
) -> Iterator[int]:
    """`patency forward`: the local port, while it runs."""
    port = free_port()
    process = subprocess.Popen(
        [demo.info["cli"], "forward", device["serial"], service, str(port)],
        env=environment(demo, url), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == f"listening 127.0.0.1:{port}"
        yield port
    finally:
        process.terminate()
        process.communicate(timeout=10)


@contextlib.contextmanager
def echo(port: int) -> Iterator[Callable[[], bytes]]:
    """A loopback server that sends back what it hears; gives what it heard so far."""
    heard = bytearray()
    listener = socket.create_server(("127.0.0.1", port))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client:
                    while data := client.recv(65536):
                        heard.extend(data)
                        client.sendall(data)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield lambda: bytes(heard)
    finally:
        listener.close()


def exchange(port: int, data: bytes) -> bytes:
    """Send, close the sending half, and read to the end."""

    def send() -> None:
        peer.sendall(data)
        peer.shutdown(socket.SHUT_WR)

    with socket.create_connection(("127.0.0.1", port), timeout=30) as peer:
        sender = threading.Thread(target=send)
        sender.start()
        answer = b"".join(iter(lambda: peer.recv(65536), b""))
        sender.join(10)
        return answer
