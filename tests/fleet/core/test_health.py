"""Health, measures, schema, and what every answer carries."""

import pytest
from django.test import Client

from fleet.core import readiness
from fleet.core.logs import StrangersFilter


@pytest.mark.django_db
def test_live_and_ready(client: Client) -> None:
    assert client.get("/-/live").json() == {"live": True}
    assert client.get("/-/ready").json() == {
        "ready": True,
        "parts": {"database": True},
        "warnings": [],
    }
    readiness.register("ingest", lambda: False)
    try:
        answer = client.get("/-/ready")
    finally:
        readiness.unregister("ingest")
    assert answer.status_code == 503
    assert answer.json()["parts"]["ingest"] is False


@pytest.mark.django_db
def test_what_warns_is_said_and_does_not_make_it_unready(client: Client) -> None:
    """Nobody takes a portal out of service two months before its certificate ends."""
    readiness.register_warnings("certificates", lambda: ["certificate_soon:server"])
    try:
        answer = client.get("/-/ready")
    finally:
        readiness.unregister_warnings("certificates")
    assert answer.status_code == 200
    assert answer.json()["warnings"] == ["certificate_soon:server"]
    assert client.get("/-/ready").json()["warnings"] == []


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/-/live", "/-/ready"])
def test_a_probe_on_this_machine_needs_no_name(client: Client, path: str) -> None:
    """It asks an address, whatever PATENCY_ORIGINS names."""
    for host in ("10.0.0.9:8140", "127.0.0.2", "anything.example", "not a host"):
        assert client.get(path, HTTP_HOST=host).status_code == 200
        assert client.get(path, HTTP_HOST=host, REMOTE_ADDR="192.0.2.7").status_code == 400
    assert client.get("/sign-in/", HTTP_HOST="10.0.0.9:8140").status_code == 400


def test_another_name_is_told_in_our_words(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    page = client.get("/sign-in/", HTTP_HOST="portal.example:8151")
    assert page.status_code == 400
    assert "PATENCY_ORIGINS" in page.content.decode()
    answer = client.get("/api/v1/me/", HTTP_HOST="portal.example", HTTP_ACCEPT="application/json")
    assert answer.json()["error"] == "unknown_name"
    record = next(r for r in caplog.records if r.name == "django.security.DisallowedHost")
    assert StrangersFilter().filter(record)
    assert "portal.example:8151" in record.getMessage()
    assert "PATENCY_ORIGINS" in record.getMessage()
    assert "ALLOWED_HOSTS" not in record.getMessage()


def test_metrics_name_nobody(client: Client) -> None:
    import fleet.mqtt.metrics  # noqa: F401

    text = client.get("/metrics").content.decode()
    assert "patency_devices_connected" in text
    assert "patency_ingest_commit_seconds_bucket" in text


def test_the_schema_is_whole(client: Client) -> None:
    answer = client.get("/api/v1/schema/?format=json")
    assert answer.status_code == 200
    paths = answer.json()["paths"]
    assert "/api/v1/devices/{device}/events/" in paths
    assert answer.json()["components"]["securitySchemes"]["token"]["scheme"] == "bearer"


def test_every_answer_is_guarded(client: Client) -> None:
    answer = client.get("/-/live")
    policy = dict(
        part.strip().split(" ", 1) for part in answer["Content-Security-Policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert "unsafe" not in answer["Content-Security-Policy"]
    assert policy["frame-ancestors"] == "'none'"
    assert answer["X-Frame-Options"] == "DENY"
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["Referrer-Policy"] == "same-origin"
    assert answer["Cross-Origin-Opener-Policy"] == "same-origin"
