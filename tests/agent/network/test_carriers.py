"""Which carrier is tried next (R-CON-7): the other one where a carrier can be to blame."""

import pytest

from agent.network.carriers import REMEMBERED_MS, Carriers, keep
from agent.network.findings import Failure
from agent.network.route import Carrier, Stage

MQTT, WEBSOCKET = Carrier.MQTT, Carrier.WEBSOCKET


@pytest.mark.parametrize(
    ("stage", "failure"),
    [
        (Stage.TLS, Failure.CUT),
        (Stage.TLS, Failure.TIMEOUT),
        (Stage.MQTT, Failure.CUT),
        (Stage.MQTT, Failure.TIMEOUT),
    ],
)
def test_a_firewall_that_refuses_mqtt_leads_to_the_websocket_and_back(
    stage: Stage, failure: Failure
) -> None:
    carriers = Carriers()
    tried = []
    for _attempt in range(4):
        tried.append(carriers.choose(0))
        carriers.failed(0, stage, failure)
    assert tried == [MQTT, WEBSOCKET, MQTT, WEBSOCKET]


@pytest.mark.parametrize(
    ("stage", "failure"),
    [
        (Stage.NAME, Failure.UNKNOWN),
        (Stage.TCP, Failure.TIMEOUT),
        (Stage.PROXY, Failure.STATUS),
        (Stage.TLS, Failure.CERTIFICATE),
        (Stage.TLS, Failure.ALERT),
        (Stage.TLS, Failure.ANSWER),
        (Stage.MQTT, Failure.CODE),
        (Stage.MQTT, Failure.ALERT),
        (Stage.LINK, Failure.CUT),
    ],
)
def test_what_is_no_carriers_fault_changes_nothing(stage: Stage, failure: Failure) -> None:
    carriers = Carriers()
    carriers.failed(0, stage, failure)
    assert carriers.choose(0) is MQTT


def test_a_server_that_takes_no_websocket_is_asked_for_mqtt_again() -> None:
    carriers = Carriers()
    carriers.failed(0, Stage.TLS, Failure.CUT)
    assert carriers.choose(0) is WEBSOCKET
    carriers.failed(0, Stage.UPGRADE, Failure.STATUS)
    assert carriers.choose(0) is MQTT


def test_two_servers_are_each_tried_with_both() -> None:
    carriers = Carriers()
    tried = []
    for server in (0, 1, 0, 1):
        tried.append((server, carriers.choose(server)))
        carriers.failed(server, Stage.TLS, Failure.CUT)
    assert tried == [(0, MQTT), (1, MQTT), (0, WEBSOCKET), (1, WEBSOCKET)]


def test_what_worked_comes_first_everywhere_and_is_news_once() -> None:
    carriers = Carriers()
    assert carriers.worked(0) is None  # as ever
    carriers.failed(0, Stage.MQTT, Failure.CUT)
    assert carriers.worked(0) is WEBSOCKET
    assert carriers.worked(0) is None
    assert carriers.choose(1) is WEBSOCKET
    carriers.failed(0, Stage.LINK, Failure.CUT)
    assert carriers.choose(0) is WEBSOCKET


def test_it_is_remembered_for_a_week() -> None:
    kept = keep(WEBSOCKET, 1_000_000)
    for later, first in ((0, WEBSOCKET), (REMEMBERED_MS - 1, WEBSOCKET), (REMEMBERED_MS, MQTT)):
        carriers = Carriers()
        carriers.recall(kept, 1_000_000 + later)
        assert carriers.choose(0) is first


@pytest.mark.parametrize("kept", ["", "websocket", "pigeon 5", "websocket x", "websocket 9999999"])
def test_what_was_not_kept_well_is_not_believed(kept: str) -> None:
    carriers = Carriers()
    carriers.recall(kept, 1_000_000)  # the last one lies ahead: a clock that was set back
    assert carriers.choose(0) is MQTT
