"""Numbers with units, times with zones, codes in words."""

from datetime import UTC, datetime

import pytest
from django.template import Context, Template
from django.utils import translation

from agent.wire.catalogue import EVENT_PRIORITY, ClinicalState, EventCode, Metric
from fleet.audit.labels import ACTIONS
from fleet.pages.templatetags import patency as tags
from fleet.telemetry import labels
from fleet.telemetry.charts import CHARTS, charts, readings

NB = "\N{NO-BREAK SPACE}"


def test_every_code_of_the_catalogue_has_words() -> None:
    assert set(labels.EVENTS) == set(EventCode)
    assert set(labels.CLINICAL_STATES) == set(ClinicalState)
    assert set(labels.PRIORITIES) == {p.value for p in EVENT_PRIORITY.values()}
    assert {labels.split_metric(metric.value)[0] for metric in Metric} == set(labels.METRICS)
    assert set(labels.EVENT_METRIC.values()) <= set(labels.METRICS)
    assert {base for base, _low, _high in CHARTS} <= set(labels.METRICS)
    assert all(":" in action for action in ACTIONS)


@pytest.mark.parametrize(
    ("actor", "shown"),
    [
        ("mdubois", "mdubois"),
        ("approver-7", "Approbateur 7"),
        ("approver-", "approver-"),
        ("portal", "Portail"),
        ("panel", "Une personne au panneau"),
    ],
)
def test_who_did_it_in_words(actor: str, shown: str) -> None:
    with translation.override("fr-ca"):
        assert tags.actor_name(actor) == shown


@pytest.mark.parametrize(
    ("value", "metric", "shown"),
    [
        (312.4, "pressure_kpa_a", f"312{NB}kPa"),
        (2104.0, "pressure_kpa_b", f"2,104{NB}kPa"),
        (0.253, "cpu_load", f"25{NB}%"),
        (12.0, "injections_today", "12"),
        (1.0, "air_selftest", "Passed"),
        (None, "fan_rpm", "–"),
        (1.0, "no_such_metric", "–"),
    ],
)
def test_a_value_has_its_unit(value: float | None, metric: str, shown: str) -> None:
    assert tags.metric_value(value, metric) == shown


def test_numbers_follow_the_language() -> None:
    with translation.override("fr-ca"):
        assert tags.number(2104.5, 1).replace(" ", NB) == f"2{NB}104,5"
        assert tags.metric_value(37.04, "heater_temp_c") == f"37,0{NB}°C"


def test_a_time_is_in_utc_until_the_browser_shows_its_own() -> None:
    at = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
    made = tags.when(at, "precise")
    assert 'datetime="2026-03-04T05:06:07.000Z"' in made
    assert 'title="2026-03-04 05:06:07 UTC"' in made
    assert "05:06:07 UTC</time>" in made
    assert tags.when(None) == "–"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, f"0{NB}s"),
        (59, f"59{NB}s"),
        (5400, f"1{NB}h{NB}30{NB}min"),
        (3600, f"1{NB}h"),
        (None, "–"),
    ],
)
def test_durations(seconds: float | None, shown: str) -> None:
    assert tags.duration(seconds) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, f"1.0{NB}kB"),
        (18_412_990, f"18.4{NB}MB"),
        (None, "–"),
    ],
)
def test_sizes(count: int | None, shown: str) -> None:
    assert tags.size(count) == shown


def test_unknown_codes_are_shown_as_they_are() -> None:
    assert tags.event_name(999) == "Event 999"
    assert tags.action_name("new:thing") == "new:thing"
    assert tags.reason_text("new_reason") == "new_reason"
    assert tags.state_name("") == "Not known yet"
    assert tags.state_tone("armed") == "use"


def test_json_in_an_attribute_cannot_leave_it() -> None:
    made = Template("{% load patency %}<p data-x='{{ v|to_json }}'>").render(
        Context({"v": ["'><script>"]})
    )
    assert "<script>" not in made
    assert made.count("'") == 2


def test_charts_are_what_the_sample_holds() -> None:
    found = charts(["pressure_kpa_a", "pressure_limit_kpa", "drive_temp_c_a", "heater_temp_c"])
    assert [chart.metric for chart in found] == ["pressure_kpa", "drive_temp_c"]
    assert [series.metric for series in found[0].series] == ["pressure_kpa_a", "pressure_limit_kpa"]
    assert found[0].series[1].limit
    assert [series.metric for series in found[1].series] == ["drive_temp_c_a", "heater_temp_c"]
    assert charts(["fan_rpm"]) == []


def test_readings_are_in_order_and_known() -> None:
    values = {"fan_rpm": 1.0, "pressure_kpa_b": 2.0, "pressure_kpa_a": 3.0, "nonsense": 4.0}
    assert [reading.metric for reading in readings(values)] == [
        "pressure_kpa_a", "pressure_kpa_b", "fan_rpm",
    ]  # fmt: skip
