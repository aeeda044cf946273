"""From what was observed to one finding, and its words in both languages (R-CON-7, R-ASR-4)."""

import re
import string
from dataclasses import replace

import pytest

from agent import i18n
from agent.network import words
from agent.network.findings import (
    EXPIRED,
    HOSTNAME_MISMATCH,
    NOT_YET_VALID,
    Code,
    Failure,
    Finding,
    Observation,
    classify,
    clock,
    clock_off,
    together,
)
from agent.network.route import Stage

DAY = 86400.0
NOW = 1_790_000_000.0
_NAMES = ("server", "proxy", "error", "status", "schemes", "issuer", "subject", "now", "true")
FACTS = {name: f"<{name}>" for name in (*_NAMES, "begins", "ends", "location", "seconds")}


def seen(stage: Stage, failure: Failure, **more: object) -> Observation:
    return replace(Observation(stage, failure, server="gate.example:443"), **more)  # type: ignore[arg-type]


CASES = [
    (seen(Stage.NAME, Failure.UNKNOWN), Code.NAME_UNKNOWN),
    (seen(Stage.NAME, Failure.UNANSWERED), Code.NAME_SERVER),
    (seen(Stage.NAME, Failure.UNKNOWN, proxy="p:1"), Code.PROXY_NAME),
    (seen(Stage.TCP, Failure.NO_ROUTE), Code.NO_ROUTE),
    (seen(Stage.TCP, Failure.REFUSED), Code.PORT_REFUSED),
    (seen(Stage.TCP, Failure.TIMEOUT), Code.PORT_BLOCKED),
    (seen(Stage.TCP, Failure.TIMEOUT, proxy="p:1"), Code.PROXY_UNREACHABLE),
    (seen(Stage.PROXY, Failure.TIMEOUT, proxy="p:1"), Code.PROXY_SILENT),
    (seen(Stage.PROXY, Failure.CUT, proxy="p:1"), Code.PROXY_UNREACHABLE),
    (seen(Stage.PROXY, Failure.PROTOCOL, proxy="p:1"), Code.PROXY_NOT_HTTP),
    (seen(Stage.PROXY, Failure.STATUS, status=407), Code.PROXY_WANTS_CREDENTIALS),
    (
        seen(Stage.PROXY, Failure.STATUS, status=407, schemes=("negotiate", "basic")),
        Code.PROXY_WANTS_CREDENTIALS,
    ),
    (
        seen(Stage.PROXY, Failure.STATUS, status=407, schemes=("basic",), credentials=True),
        Code.PROXY_REFUSES_CREDENTIALS,
    ),
    (seen(Stage.PROXY, Failure.STATUS, status=407, schemes=("ntlm",)), Code.PROXY_SCHEME),
    (
        seen(Stage.PROXY, Failure.STATUS, status=401, credentials=True),
        Code.PROXY_REFUSES_CREDENTIALS,
    ),
    (seen(Stage.PROXY, Failure.STATUS, status=403), Code.PROXY_FORBIDS),
    (seen(Stage.PROXY, Failure.STATUS, status=500), Code.PROXY_CANNOT_REACH),
    (seen(Stage.PROXY, Failure.STATUS, status=502), Code.PROXY_CANNOT_REACH),
    (seen(Stage.PROXY, Failure.STATUS, status=504), Code.PROXY_CANNOT_REACH),
    (seen(Stage.PROXY, Failure.STATUS, status=302), Code.PROXY_STATUS),
    (seen(Stage.TLS, Failure.ANSWER, location="login.example"), Code.CAPTIVE_PORTAL),
    (seen(Stage.TLS, Failure.CUT), Code.TLS_CUT),
    (seen(Stage.TLS, Failure.TIMEOUT), Code.TLS_SILENT),
    (seen(Stage.TLS, Failure.PROTOCOL), Code.TLS_FAILED),
    (seen(Stage.TLS, Failure.ALERT, alert="TLSV1_ALERT_PROTOCOL_VERSION"), Code.TLS_FAILED),
    (seen(Stage.TLS, Failure.ALERT, alert="SSLV3_ALERT_CERTIFICATE_EXPIRED"), Code.OWN_EXPIRED),
    (seen(Stage.MQTT, Failure.ALERT, alert="SSLV3_ALERT_CERTIFICATE_REVOKED"), Code.OWN_REVOKED),
    (seen(Stage.MQTT, Failure.ALERT, alert="TLSV1_ALERT_UNKNOWN_CA"), Code.OWN_REFUSED),
    (seen(Stage.MQTT, Failure.ALERT, alert="TLSV13_ALERT_CERTIFICATE_REQUIRED"), Code.OWN_REFUSED),
    (seen(Stage.TLS, Failure.CERTIFICATE, verify_code=20, issuer="Zap"), Code.TLS_INSPECTED),
    (seen(Stage.TLS, Failure.CERTIFICATE, verify_code=19), Code.TLS_INSPECTED),
    (seen(Stage.TLS, Failure.CERTIFICATE, verify_code=HOSTNAME_MISMATCH), Code.WRONG_SERVER),
    (seen(Stage.UPGRADE, Failure.STATUS, status=404), Code.WEBSOCKET_REFUSED),
    (seen(Stage.MQTT, Failure.CUT), Code.MQTT_CUT),
    (seen(Stage.MQTT, Failure.TIMEOUT), Code.MQTT_SILENT),
    (seen(Stage.MQTT, Failure.CODE), Code.MQTT_REFUSED),
    (seen(Stage.LINK, Failure.CUT), Code.CUT_OFF),
]


@pytest.mark.parametrize(("observation", "code"), CASES, ids=[case[1].value for case in CASES])
def test_one_finding_fits(observation: Observation, code: Code) -> None:
    finding = classify(observation)
    assert finding.code is code
    assert "{" not in words.tell(finding)  # every fact that the words name is there


def test_every_code_is_reached() -> None:
    dated = {Code.CLOCK_BEHIND, Code.CLOCK_AHEAD, Code.SERVER_EXPIRED, Code.EXPIRED_OR_CLOCK}
    joined = {Code.MQTT_BLOCKED, Code.CARRIERS_CUT, Code.OWN_SUPERSEDED, Code.IDLE_CUT}
    assert {case[1] for case in CASES} | dated | joined == set(Code)


@pytest.mark.parametrize(
    ("verify_code", "now", "true", "code"),
    [
        (NOT_YET_VALID, NOW, None, Code.CLOCK_BEHIND),
        (NOT_YET_VALID, NOW, NOW + 400 * DAY, Code.CLOCK_BEHIND),
        (EXPIRED, NOW, None, Code.EXPIRED_OR_CLOCK),
        (EXPIRED, NOW, NOW - 400 * DAY, Code.CLOCK_AHEAD),
        (EXPIRED, NOW, NOW + 60, Code.SERVER_EXPIRED),
        (NOT_YET_VALID, NOW, NOW, Code.SERVER_EXPIRED),
        (EXPIRED, NOW, NOW + 400 * DAY, Code.CLOCK_BEHIND),
    ],
)
def test_a_date_that_does_not_fit_is_the_clocks_or_the_servers(
    verify_code: int, now: float, true: float | None, code: Code
) -> None:
    observation = seen(
        Stage.TLS,
        Failure.CERTIFICATE,
        verify_code=verify_code,
        now=now,
        server_date=true,
        not_before=NOW - DAY,
        not_after=NOW + DAY,
    )
    assert classify(observation).code is code


@pytest.mark.parametrize(
    ("now", "true", "floor", "code"),
    [
        (NOW, NOW + 5, NOW - DAY, None),
        (NOW, NOW + DAY, 0, Code.CLOCK_BEHIND),
        (NOW, NOW - DAY, 0, Code.CLOCK_AHEAD),
        (NOW, None, NOW - DAY, None),
        (NOW, None, NOW + DAY, Code.CLOCK_BEHIND),  # before a date that was signed
    ],
)
def test_a_clock_beside_the_servers_and_what_was_signed(
    now: float, true: float | None, floor: float, code: Code | None
) -> None:
    found = clock(now, true, floor)
    assert (found.code if found else None) is code
    if found:
        assert "2026" in words.what(found)


def test_a_clock_may_be_a_little_off() -> None:
    assert clock_off(NOW, NOW + 299) is None
    assert clock_off(NOW, NOW + 301) == -301
    assert clock_off(NOW + 301, NOW) == 301


def test_a_cut_means_more_once_the_websocket_was_tried() -> None:
    inspected = Finding(Code.TLS_INSPECTED)
    for code in (Code.TLS_CUT, Code.TLS_SILENT, Code.MQTT_CUT, Code.MQTT_SILENT):
        assert together(Finding(code), None).code is Code.MQTT_BLOCKED
        assert together(Finding(code), inspected).code is code
    assert together(inspected, None) == inspected


def test_a_server_that_hangs_up_on_both_carriers_looks_like_a_firewall() -> None:
    cut = Finding(Code.MQTT_CUT, {"server": "a:1", "error": "cut"})
    for other in (cut, Finding(Code.WEBSOCKET_REFUSED, {"status": "-"})):
        assert together(cut, other).code is Code.CARRIERS_CUT
    answered = Finding(Code.WEBSOCKET_REFUSED, {"status": "403"})
    assert together(cut, answered).code is Code.MQTT_CUT


@pytest.mark.parametrize("code", list(Code), ids=str)
def test_every_code_has_words_and_a_remedy_in_both_languages(code: Code) -> None:
    finding = Finding(code, FACTS)
    told = {}
    for language in i18n.LANGUAGES:
        i18n.use(language)
        told[language] = (words.what(finding), words.remedy(finding))
    i18n.use("en")
    for english, french in zip(told["en"], told["fr_CA"], strict=True):
        assert english.strip() == english
        assert english[0] in string.ascii_uppercase + "<"
        assert english.endswith(".")
        assert french != english
        assert set(re.findall(r"<\w+>", french)) == set(re.findall(r"<\w+>", english))
