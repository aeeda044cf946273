"""The bench still runs: few rounds, and no look at how fast. Figures come from `make bench`."""

import pytest

from tests.bench import _poll, ingest, request_latency

pytestmark = pytest.mark.timeout(180)


def test_a_request_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_latency, "REQUESTS", 3)
    monkeypatch.setattr(request_latency, "WARM_UP", 1)
    monkeypatch.setattr(request_latency, "DEVICES", 2)
    monkeypatch.setattr(_poll, "EVERY_S", 1.0)
    assert len(request_latency.run()) >= 2


def test_ingest_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "EVENTS", 200)
    monkeypatch.setattr(ingest, "DEVICES", 2)
    (row,) = ingest.run()
    assert row.value > 0
