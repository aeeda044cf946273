"""systemd itself reads our units: nothing unknown in them, little exposed (R-MNT-6)."""

import re
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
# Of 10.
MOST_EXPOSED = {
    "patency-agent.service": 1.5,
    "patency-portal.service": 2.0,
    "patency-access-server.service": 2.0,
}


def _here(name: str, folder: Path) -> Path:
    """The unit with what a package would have installed replaced by what every system has."""
    text = (DEPLOY / name).read_text()
    text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.MULTILINE)
    text = re.sub(r"^WorkingDirectory=.*", "WorkingDirectory=/", text, flags=re.MULTILINE)
    placed = folder / name
    placed.write_text(text)
    return placed


def _analyse(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", "--no-pager", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("name", MOST_EXPOSED)
def test_systemd_understands_every_line(name: str, tmp_path: Path) -> None:
    done = _analyse("verify", "--man=no", "--recursive-errors=no", _here(name, tmp_path))
    assert (done.returncode, done.stderr.strip()) == (0, "")


def test_and_would_say_so_if_it_did_not(tmp_path: Path) -> None:
    unit = _here("patency-agent.service", tmp_path)
    unit.write_text(unit.read_text().replace("NoNewPrivileges=yes", "NoNewPrivilege=yes"))
    done = _analyse("verify", "--man=no", "--recursive-errors=no", unit)
    assert "NoNewPrivilege" in done.stderr


@pytest.mark.parametrize("name", MOST_EXPOSED)
def test_little_is_exposed(name: str, tmp_path: Path) -> None:
    unit = _here(name, tmp_path)
    most = int(MOST_EXPOSED[name] * 10)
    done = _analyse("security", "--offline=true", f"--threshold={most}", unit)
    assert done.returncode == 0, done.stdout
    weaker = (
        unit.read_text().replace("ProtectSystem=strict\n", "").replace("NoNewPrivileges=yes", "")
    )
    unit.write_text(re.sub(r"^SystemCallFilter=.*\n", "", weaker, flags=re.MULTILINE))
    done = _analyse("security", "--offline=true", f"--threshold={most}", unit)
    assert done.returncode != 0


def test_nothing_of_the_agent_can_listen() -> None:
    """R-CON-3."""
    lines = (DEPLOY / "patency-agent.service").read_text().splitlines()
    assert "SocketBindDeny=any" in lines
    assert "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6" in lines
