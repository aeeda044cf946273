"""A portal, a profile that is signed in to it, and the command as a process."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvloop
from click.testing import CliRunner
from cryptography.hazmat.primitives.serialization import Encoding

from fleet.client import keys
from fleet.client.main import main
from tests.client.portal import TOKEN, TestPortal
from tests.tls import Authority


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every asynchronous test here runs on both loops: the command takes uvloop's where it is."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@dataclass
class Done:
    returncode: int
    stdout: bytes
    stderr: bytes


@dataclass
class Command:
    """The `patency` command with its own profile."""

    folder: Path
    language: str = "en_CA.UTF-8"

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "PATENCY_PROFILE": str(self.folder), "LC_ALL": self.language}

    def __call__(self, *arguments: object, given: bytes = b"", expect: int | None = 0) -> Done:
        """Run it in this process: a new one costs half a second."""
        result = CliRunner().invoke(
            main,
            [str(it) for it in arguments],
            input=given,
            env={name: self._environment()[name] for name in ("PATENCY_PROFILE", "LC_ALL")},
        )
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        done = Done(result.exit_code, result.stdout_bytes, result.stderr_bytes)
        assert expect is None or done.returncode == expect, done
        return done

    def json(self, *arguments: object, expect: int | None = 0) -> Any:
        return json.loads(self(*arguments, "-o", "json", expect=expect).stdout)

    @contextmanager
    def started(self, *arguments: object) -> Iterator[subprocess.Popen[bytes]]:
        """A command that stays; ended with the block."""
        process = subprocess.Popen(
            [sys.executable, "-m", "fleet.client.main", *map(str, arguments)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=self._environment(),
        )  # fmt: skip
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                assert pipe is not None
                pipe.close()

    @contextmanager
    def forwarding(self, service: str, *options: object) -> Iterator[tuple[Any, int]]:
        with self.started("forward", "S-1001", service, 0, *options) as process:
            line = process.stdout.readline().decode()
            assert line.startswith("listening 127.0.0.1:"), (line, process.stderr.read())
            yield process, int(line.rsplit(":", 1)[1])


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def command(tmp_path: Path, authority: Authority) -> Command:
    folder = tmp_path / "profile"
    folder.mkdir(mode=0o700)
    keys.create(folder / "id_ed25519")
    root = authority.root.certificate.public_bytes(Encoding.PEM)
    (folder / "device-root.pem").write_bytes(root)
    return Command(folder)


@pytest.fixture
def portal(command: Command, authority: Authority) -> Iterator[TestPortal]:
    specialist = keys.signer(command.folder / "id_ed25519").public
    with TestPortal(authority, specialist_key=specialist).running() as portal:
        command("login", portal.url, "--token", TOKEN)
        yield portal


REQUEST = (
    "request", "S-1001", "--level", "service", "--service", "web", "--service", "console",
    "--reason", "repair", "--ticket", "T-1", "--note", "heater", "--for", "30m",
)  # fmt: skip


@pytest.fixture
def session(portal: TestPortal, command: Command) -> str:
    """An active session."""
    return str(command.json(*REQUEST, "--wait")["session"])
