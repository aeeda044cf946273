"""The doctor's report: one page, two languages, kept in the hospital (R-PRV-2, R-ASR-4)."""

import json
import shlex
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent import i18n, main
from agent.doctor import report
from agent.doctor.checks import Check, Examination, Note, Said, Verdict, What
from agent.network import settings
from agent.network.findings import Code, Finding
from agent.panel.contacts import Contacts
from agent.wire import messages
from agent.wire.messages import Event, Hello
from tests.agent.doctor.test_examination import AUTHORITY, STRANGER, hospital, look, servers
from tests.agent.network.relays import HttpProxy, intercepting
from tests.agent.support import enrolled
from tests.agent.test_runtime import Running

EAST, WEST = "east.patency.example:443", "west.patency.example:443"
AT = 1_795_000_000.0


def found(*checks: Check, proxy: str = "", user: str = "") -> Examination:
    return Examination(
        at=AT,
        serial="SN-0001",
        device="device-0001",
        proxy=proxy,
        proxy_user=user,
        servers=(EAST, WEST),
        authority="CN=Patency server CA",
        checks=checks,
    )


def took(what: What, server: str) -> Check:
    return Check(what, Verdict.GOOD, Note(Said.TOOK, {"ms": "12"}), server, 0.012)


def usual(*more: Check) -> Examination:
    reached = [
        took(what, server)
        for server in (EAST, WEST)
        for what in (What.NAME, What.PORT, What.PROXY, What.TLS, What.MQTT)
    ]
    return found(
        Check(
            What.AGENT, Verdict.GOOD, Note(Said.AGENT_ONLINE, {"server": EAST, "carrier": "mqtt"})
        ),
        Check(What.CLOCK, Verdict.GOOD, Note(Said.CLOCK_GOOD)),
        Check(What.CREDENTIAL, Verdict.GOOD, Note(Said.VALID, {"ends": "2027-01-01 00:00 UTC"})),
        *reached,
        *more,
        proxy="proxy.hospital.example:3128",
    )


INSPECTED = Check(
    What.TLS,
    Verdict.BAD,
    Finding(
        Code.TLS_INSPECTED,
        {"server": EAST, "issuer": "Zap CA", "error": "x", "proxy": "", "subject": "?"},
    ),
    EAST,
)


def test_the_page_is_one_page_and_says_everything_in_both_languages() -> None:
    page = report.page(usual(INSPECTED), Contacts())
    lines = page.splitlines()
    assert len(lines) <= 66
    english, french = page.split("=" * 100)
    for half in (english, french):
        for text in (
            "SN-0001",
            "Zap CA",
            EAST,
            WEST,
            "proxy.hospital.example:3128",
            "+1 800 555 0143",
        ):
            assert text in half
        assert half.count("openssl s_client") == 2
    assert "This page stays with the hospital." in english
    assert "Cette page reste à l’hôpital." in french
    assert "WRONG" in english
    assert "ERREUR" in french
    assert "exempt" in english
    assert "exemptez" in french
    assert i18n.language() == "en"


def test_no_line_of_the_french_half_is_english() -> None:
    english, french = report.page(usual(INSPECTED), Contacts()).split("=" * 100)
    same = set(english.splitlines()) & set(french.splitlines())
    assert not [line for line in same if line and not line.startswith("  openssl")]


def test_the_verdict_is_that_of_the_worst() -> None:
    good, note = took(What.NAME, EAST), Check(What.AGENT, Verdict.ADVICE, Note(Said.AGENT_OFF))
    assert found(good, note).ok
    assert not found(good, note, INSPECTED).ok


def test_the_line_for_a_workstation() -> None:
    line = report.openssl(found(), EAST)
    assert line == (
        "openssl s_client -connect east.patency.example:443 -servername east.patency.example"
        " -alpn mqtt </dev/null 2>/dev/null | openssl x509 -noout -issuer -subject -dates"
    )
    through = report.openssl(found(proxy="p.example:3128", user="o'neil"), EAST)
    words = shlex.split(through.split(" <")[0])
    assert words[words.index("-proxy") + 1] == "p.example:3128"
    assert words[words.index("-proxy_user") + 1] == "o'neil"
    assert "-servername" not in report.openssl(found(), "192.0.2.1:443")


def test_json_has_what_the_contract_names() -> None:
    shown = report.as_json(usual(INSPECTED))
    assert set(shown) == {"ok", "at", "serial", "device", "proxy", "checks", "allow", "openssl"}
    assert shown["ok"] is False
    last = shown["checks"][-1]
    assert (last["check"], last["verdict"], last["code"]) == ("tls", "bad", "tls_inspected")
    assert last["target"] == EAST
    assert last["remedy"]


# --- the command ---------------------------------------------------------------------------------


def doctor(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(main.main, ["doctor", *map(str, arguments)])
    return result.exit_code, result.output


def test_the_command_writes_a_private_page_and_exits_with_8(tmp_path: Path, free_port: int) -> None:
    state = enrolled(tmp_path / "state", AUTHORITY, free_port, enrol_port=free_port)
    page = tmp_path / "report.txt"
    status, output = doctor("--state", state, "-o", "json", "--report", page)
    assert status == 8
    assert json.loads(output)["checks"][-1]["code"] == "port_refused"
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert "Cette page reste à l’hôpital." in page.read_text()
    status, output = doctor("--state", state)
    assert status == 8
    assert "WRONG" in output


def test_the_command_speaks_the_injectors_language(tmp_path: Path, free_port: int) -> None:
    state = enrolled(tmp_path / "state", AUTHORITY, free_port, enrol_port=free_port)
    (state / "driver.json").write_text('{"language": "fr_CA"}')
    assert "ERREUR" in doctor("--state", state)[1]
    i18n.use("en")


def test_a_state_directory_that_cannot_be_used_is_status_2(tmp_path: Path) -> None:
    status, output = doctor("--state", tmp_path, "-o", "json")
    assert (status, json.loads(output)["error"]) == (2, "state")


def test_a_report_that_cannot_be_written_is_said(tmp_path: Path, free_port: int) -> None:
    state = enrolled(tmp_path / "state", AUTHORITY, free_port)
    status, output = doctor("--state", state, "--report", tmp_path / "missing" / "page")
    assert status == 2
    assert "cannot be written" in output


# --- it stays with the hospital ------------------------------------------------------------------


async def test_nothing_of_what_the_doctor_finds_goes_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """R-PRV-2: what leaves while a report is made beside an agent names nothing of the network."""
    caplog.set_level("DEBUG")
    proxy = HttpProxy(credentials=("ct2-user", "Zr8-never-up"))
    async with (
        hospital(tmp_path) as (state, served),
        proxy.serving() as port,
        intercepting(STRANGER, served.gate.port) as inspected,
    ):
        change = {"proxy": f"127.0.0.1:{port}", "user": "ct2-user", "password": "Zr8-never-up"}
        settings.save(state, settings.changed(settings.Settings(), change))
        async with Running(state) as running:
            await served.until(lambda: served.of(Hello))
            servers(
                state, served.gate.port, inspected
            )  # for the doctor; the agent has read its own
            examined = await look(state)
            page = report.page(examined, Contacts())
            (state / "report.txt").write_text(page)
            assert examined.ok  # it has the other one
            running.event()
            await served.until(lambda: served.of(Event))
            await served.until(lambda: running.agent.outbox.depth == 0)
    up = b"\n".join(messages.encode(m) for m in (*served.decided, *served.now)).decode()
    secrets = (
        "ct2-user",
        "Zr8-never-up",
        f"127.0.0.1:{port}",
        "Hospital Inspection",
        str(inspected),
    )
    assert all(secret in page for secret in secrets if secret != "Zr8-never-up")
    assert "Zr8-never-up" not in page
    for secret in (*secrets, "openssl", "inspect"):
        assert secret not in up
        assert secret not in (state / "agent.db").read_bytes().decode("latin-1")
    assert "Zr8-never-up" not in caplog.text
