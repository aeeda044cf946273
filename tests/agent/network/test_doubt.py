"""Whose doing it is when servers hang up: the certificate, or the network (R-CON-7)."""

import pytest

from agent.network.doubt import Doubt
from agent.network.findings import Code, Finding, judgement
from agent.network.route import Carrier

MQTT = Finding(Code.MQTT_CUT, {"server": "a:1", "error": "cut"})
WEBSOCKET = Finding(Code.WEBSOCKET_REFUSED, {"server": "a:1", "error": "cut", "status": "-"})
ANSWERED = Finding(Code.WEBSOCKET_REFUSED, {"server": "a:1", "error": "status", "status": "403"})
REFUSED = Finding(Code.PORT_REFUSED, {"server": "b:1", "error": "refused"})


def met(doubt: Doubt, carrier: Carrier, finding: Finding, *, over: bool = False) -> Code:
    return doubt.met(carrier, finding, over=over).code


def both(doubt: Doubt) -> tuple[Code, Code]:
    return met(doubt, Carrier.MQTT, MQTT), met(doubt, Carrier.WEBSOCKET, WEBSOCKET)


def test_both_carriers_are_needed_and_then_it_is_the_same_for_either() -> None:
    doubt = Doubt()
    assert both(doubt) == (Code.MQTT_CUT, Code.CARRIERS_CUT)
    assert doubt.stands
    assert both(doubt) == (Code.CARRIERS_CUT, Code.CARRIERS_CUT)


def test_an_answer_in_http_and_any_other_fault_raise_no_doubt() -> None:
    doubt = Doubt()
    assert met(doubt, Carrier.MQTT, MQTT) is Code.MQTT_CUT
    assert met(doubt, Carrier.WEBSOCKET, ANSWERED) is Code.WEBSOCKET_REFUSED
    assert met(doubt, Carrier.WEBSOCKET, REFUSED) is Code.PORT_REFUSED
    assert not doubt.stands


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("credential_revoked", Code.OWN_REVOKED),
        ("credential_superseded", Code.OWN_SUPERSEDED),
        ("credential_lapsed", Code.OWN_REFUSED),
        ("claim_refused", Code.OWN_REFUSED),
    ],
)
def test_what_the_portal_says_is_the_finding_at_every_server(reason: str, code: Code) -> None:
    doubt = Doubt()
    both(doubt)
    doubt.judged(judgement(reason))
    assert both(doubt) == (code, code)
    assert met(doubt, Carrier.MQTT, REFUSED) is code  # one server dead changes nothing of it


@pytest.mark.parametrize("reason", ["", "302", "too_many", "board_changed"])
def test_where_the_portal_has_nothing_against_it_the_network_is_to_blame(reason: str) -> None:
    doubt = Doubt()
    both(doubt)
    doubt.judged(judgement(reason))
    assert both(doubt) == (Code.CARRIERS_CUT, Code.CARRIERS_CUT)


def test_a_certificate_that_is_over_says_enough_until_the_portal_knows_better() -> None:
    doubt = Doubt()
    assert met(doubt, Carrier.MQTT, MQTT, over=True) is Code.OWN_EXPIRED
    assert met(doubt, Carrier.WEBSOCKET, WEBSOCKET, over=True) is Code.OWN_EXPIRED
    assert met(doubt, Carrier.WEBSOCKET, REFUSED, over=True) is Code.PORT_REFUSED
    doubt.judged(None)  # given again: the clock is wrong
    assert met(doubt, Carrier.MQTT, MQTT, over=True) is Code.CARRIERS_CUT


def test_a_connection_ends_all_doubt() -> None:
    doubt = Doubt()
    both(doubt)
    doubt.judged(Code.OWN_REVOKED)
    doubt.settled()
    assert not doubt.stands
    assert both(doubt) == (Code.MQTT_CUT, Code.CARRIERS_CUT)
