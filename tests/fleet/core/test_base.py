"""Clock, identifiers, ports, files, settings."""

import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, transaction

from agent.wire import topics
from agent.wire.messages import Cancel
from fleet.core import clock, ids, ports
from fleet.core.files import write_private
from tests.conftest import Ports


def test_times_go_to_the_wire_and_back() -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
    assert clock.from_ms(clock.to_ms(at)) == at
    assert clock.from_ms(0) == datetime(1970, 1, 1, tzinfo=UTC)
    assert clock.from_ms(2**53 - 1).year == 9990  # a claim no calendar holds


def test_identifiers_fit_the_wire() -> None:
    made = {ids.new_device_id() for _ in range(100)}
    assert len(made) == 100
    assert all(topics.is_device_id(one) for one in made)
    assert len(ids.new_hex32()) == 32


@pytest.mark.django_db(transaction=True)
def test_nothing_is_sent_before_the_commit_or_after_a_rollback(ports: Ports) -> None:
    from fleet.core import ports as real

    message = Cancel(execution="0" * 32)
    with transaction.atomic():
        real.send_down("device-0001", message)
        real.hint("fleet", {"kind": "test"})
        assert not ports.sent
    assert ports.sent == [("device-0001", message)]
    assert ports.hints == [("fleet", {"kind": "test"})]
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        real.kick("device-0001")
        _ = 1 / 0
    assert not ports.kicked


@pytest.mark.django_db(transaction=True)
def test_one_broken_pipe_does_not_stop_the_others(ports: Ports) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError

    ports_module = __import__("fleet.core.ports", fromlist=["ports"])
    ports_module.set_sender(broken)
    with transaction.atomic():
        ports_module.send_down("device-0001", Cancel(execution="0" * 32))
        ports_module.hint("fleet", {"kind": "test"})
    assert ports.hints


def test_before_a_server_is_there_frames_are_not_taken() -> None:
    assert ports._drop_frame("device-0001", b"") is False


def test_private_files_are_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "new" / "key"
    write_private(path, b"one")
    write_private(path, b"two")
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [p.name for p in path.parent.iterdir()] == ["key"]


def _settings(data: Path, code: str, **environ: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", f"from fleet import settings; {code}"],
        env={"PATH": os.environ["PATH"], "PATENCY_DATA": str(data), **environ},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


def test_the_secret_is_made_once_and_kept(tmp_path: Path) -> None:
    first = _settings(tmp_path / "data", "print(settings.SECRET_KEY)")
    assert len(first) >= 48
    assert _settings(tmp_path / "data", "print(settings.SECRET_KEY)") == first
    assert (tmp_path / "data" / "secret").stat().st_mode & 0o777 == 0o600


def _refused(data: Path, **environ: str) -> str:
    """What is said when there are no settings to be had: one line, and no traceback."""
    done = subprocess.run(
        [sys.executable, "-c", "from fleet import settings"],
        env={"PATH": os.environ["PATH"], "PATENCY_DATA": str(data), **environ},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("PATENCY_NOTICE_DAYS", "abc", "whole number"),
        ("PATENCY_NOTICE_DAYS", "-5", "whole number"),
        ("PATENCY_NOTICE_DAYS", "3651", "to 3650"),
        ("PATENCY_HTTP", "nowhere", "127.0.0.1:8000"),
        ("PATENCY_MQTT", ":443", "host:port"),
        ("PATENCY_LINK", "host:x", "host:port"),
        ("PATENCY_METRICS", "127.0.0.1:70000", "host:port"),
        ("PATENCY_PUBLIC", "foo", "portal.example:443"),
        ("PATENCY_ORIGINS", "portal.example", "https://portal.example"),
        ("PATENCY_ORIGINS", "https://portal.example/path", "https://portal.example"),
        ("PATENCY_ACCESS_ORIGIN", "access", "https://"),
        ("PATENCY_LOG", "loud", "warning"),
    ],
)
def test_a_bad_setting_is_named_with_its_value_and_the_remedy(
    tmp_path: Path, name: str, value: str, remedy: str
) -> None:
    said = _refused(tmp_path, **{name: value})
    assert said.startswith(f"{name} is ")
    assert value.lower() in said.lower()
    assert remedy in said


def test_every_setting_stands_in_the_table_and_no_other() -> None:
    """docs/settings.md and what the code reads."""
    here = Path(__file__).parents[3]
    sources = [here / "fleet/settings.py", here / "fleet/demo/plan.py", here / "manage.py"]
    read = {
        name
        for source in sources
        for name in re.findall(r"\bPATENCY_[A-Z_]+\b", source.read_text())
        if name not in ("PATENCY_CONTACTS", "PATENCY_CONTACT_")
    }
    table = (here / "docs/settings.md").read_text()
    portal = table.partition("## For other programs")[0]
    assert set(re.findall(r"^\| `(PATENCY_[A-Z_]+)`", portal, re.MULTILINE)) == read
    rest = set(re.findall(r"^\| `(PATENCY_[A-Z_]+)`", table, re.MULTILINE)) - read
    for name in rest:
        found = [p for top in ("agent", "fleet", "deploy") for p in (here / top).rglob("*")]
        assert any(name in p.read_text() for p in found if p.suffix in (".py", ".cfg", ".service"))


@pytest.mark.parametrize("data", ["/etc/passwd", "/etc/passwd/x", "/proc/x"])
def test_a_data_directory_that_cannot_be_is_named(data: str) -> None:
    said = _refused(Path(data))
    assert said.startswith(f"The data directory {data} cannot be used (")
    assert "PATENCY_DATA=" in said


@pytest.mark.parametrize("secret", [b"", b"short", b"\xff" * 64])
def test_a_damaged_secret_is_named(tmp_path: Path, secret: bytes) -> None:
    (tmp_path / "secret").write_bytes(secret)
    (tmp_path / "secret").chmod(0o600)
    assert f"rm {tmp_path / 'secret'}" in _refused(tmp_path)


def test_a_secret_open_to_others_is_closed(tmp_path: Path) -> None:
    first = _settings(tmp_path, "print(settings.SECRET_KEY)")
    (tmp_path / "secret").chmod(0o644)
    assert _settings(tmp_path, "print(settings.SECRET_KEY)") == first
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_cookies_are_secure_once_every_origin_is(tmp_path: Path) -> None:
    code = "print(settings.SESSION_COOKIE_SECURE, settings.SECURE_HSTS_SECONDS > 0)"
    assert _settings(tmp_path, code) == "False False"
    assert _settings(tmp_path, code, PATENCY_ORIGINS="https://portal.example") == "True True"


@pytest.mark.django_db
def test_the_database_is_set_up_for_one_writer_and_power_cuts() -> None:
    from fleet import settings

    with connection.cursor() as cursor:
        assert cursor.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    options = settings.DATABASES["default"]["OPTIONS"]
    assert options["transaction_mode"] == "IMMEDIATE"  # type: ignore[index]
