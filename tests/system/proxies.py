"""Debian's squid and tinyproxy, each on a port of loopback and ended by its own handle."""

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

USER, PASSWORD = "ct2", "Zr8-never-up"
START_S = 20.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def squid(*allowed: int, credentials: bool = True) -> Iterator[int]:
    """CONNECT to `allowed` ports, for USER with PASSWORD."""
    port = free_port()
    with _folder() as folder:
        secret = subprocess.run(
            ["openssl", "passwd", "-apr1", PASSWORD], check=True, capture_output=True, text=True
        ).stdout.strip()
        (folder / "users").write_text(f"{USER}:{secret}\n")
        rules = ["acl allowed port " + " ".join(map(str, allowed)), "http_access deny !allowed"]
        if credentials:
            rules += [
                f"auth_param basic program /usr/lib/squid/basic_ncsa_auth {folder / 'users'}",
                "acl known proxy_auth REQUIRED",
                "http_access allow known",
                "http_access deny all",
            ]
        else:
            rules.append("http_access allow all")
        (folder / "squid.conf").write_text(
            "\n".join(
                [
                    f"http_port 127.0.0.1:{port}",
                    "pid_filename none",
                    "access_log none",
                    f"cache_log {folder / 'log'}",
                    "cache deny all",
                    "cache_mem 8 MB",
                    "max_filedescriptors 256",
                    "pinger_enable off",
                    "connect_timeout 5 seconds",
                    "shutdown_lifetime 0 seconds",
                    f"coredump_dir {folder}",
                    *rules,
                    "",
                ]
            )
        )
        folder.joinpath("users").chmod(0o644)
        with _process(["squid", "-N", "-f", str(folder / "squid.conf")], port):
            yield port


@contextmanager
def tinyproxy(*allowed: int, credentials: bool = True) -> Iterator[int]:
    port = free_port()
    with _folder() as folder:
        lines = [
            f"Port {port}",
            "Listen 127.0.0.1",
            "Allow 127.0.0.1",
            "Timeout 600",
            "MaxClients 32",
            f'LogFile "{folder / "log"}"',
            *(f"ConnectPort {each}" for each in allowed),
        ]
        if credentials:
            lines.append(f"BasicAuth {USER} {PASSWORD}")
        (folder / "tinyproxy.conf").write_text("\n".join([*lines, ""]))
        with _process(["tinyproxy", "-d", "-c", str(folder / "tinyproxy.conf")], port):
            yield port


@contextmanager
def _folder() -> Iterator[Path]:
    """One that the proxy's own user may enter."""
    with tempfile.TemporaryDirectory(prefix="proxy-") as name:
        Path(name).chmod(0o777)
        yield Path(name)


@contextmanager
def _process(command: list[str], port: int) -> Iterator[None]:
    started = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin"},
    )
    try:
        deadline = time.monotonic() + START_S
        while True:
            assert started.poll() is None, f"{command[0]} ended with {started.returncode}"
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert time.monotonic() < deadline, f"{command[0]} does not listen"
                time.sleep(0.05)
        yield
    finally:
        started.kill()
        started.wait(10)
