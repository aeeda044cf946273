"""Clocks, languages and sampling."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent import clock as clock_module
from agent import i18n, posix
from agent.clock import Clock
from agent.drivers import DriverEvent
from agent.sampling import BATCH, EVERY_S, Sampler
from agent.wire.catalogue import EventCode, EventPhase, Metric
from agent.wire.messages import Event, Telemetry
from tests.agent.support import StubDriver

# --- clocks --------------------------------------------------------------------------------------


def test_the_boot_has_an_id_that_stays() -> None:
    assert Clock().boot == Clock().boot
    assert len(Clock().boot) == 32
    int(Clock().boot, 16)


def test_without_the_kernels_boot_id_there_is_a_random_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posix, "_BOOT_ID", tmp_path / "none")
    assert posix.boot_id() != posix.boot_id()
    assert len(posix.boot_id()) == 32


def test_wall_time_never_falls_below_its_floor() -> None:
    """DESIGN, names and time: build date, then the newest signed date seen."""
    wall = [0.0]
    kept: list[int] = []
    clock = Clock(wall_seconds=lambda: wall[0], boot_seconds=lambda: 12.5)
    assert clock.wall_ms() == clock_module.BUILD_DATE_MS
    clock.keep_floor(clock_module.BUILD_DATE_MS + 5, kept.append)
    assert clock.wall_ms() == clock_module.BUILD_DATE_MS + 5
    clock.raise_floor(clock_module.BUILD_DATE_MS + 9)
    clock.raise_floor(clock_module.BUILD_DATE_MS + 7)
    assert clock.floor_ms == clock_module.BUILD_DATE_MS + 9
    assert kept == [clock_module.BUILD_DATE_MS + 9]
    wall[0] = datetime(2030, 1, 1, tzinfo=UTC).timestamp()
    assert clock.wall_ms() == int(wall[0] * 1000)
    assert (clock.uptime_ms(), clock.now()) == (12_500, 12.5)


# --- languages -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tag", "language"),
    [("fr-CA", "fr_CA"), ("fr_CA.UTF-8", "fr_CA"), ("FR", "fr_CA"), ("en", "en"), ("de", "en"),
     ("", "en"), (None, "en")],
)  # fmt: skip
def test_the_nearest_language(tag: str | None, language: str) -> None:
    i18n.use(tag)
    assert i18n.language() == language
    i18n.use("en")


def test_a_text_without_translation_stays_and_the_empty_text_is_empty() -> None:
    i18n.use("fr-CA")
    assert i18n._("zzz no such text") == "zzz no such text"
    assert i18n._("") == ""
    assert i18n.ngettext("zzz one", "zzz many", 2) == "zzz many"
    i18n.use("en")


def test_what_is_wanted_then_the_injectors_then_the_environments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    assert i18n.chosen(tmp_path) == "en"
    monkeypatch.setenv("LANG", "fr_CA.UTF-8")
    assert i18n.chosen(tmp_path) == "fr_CA"
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    assert i18n.chosen(tmp_path) == "en"
    (tmp_path / "driver.json").write_text('{"language": "fr-CA"}')
    assert i18n.chosen(tmp_path) == "fr_CA"
    assert i18n.chosen(tmp_path, "en") == "en"


@pytest.mark.parametrize("text", ['{"language": "fr-CA"}', "{", "[]", '{"language": 3}', None])
def test_the_language_of_a_state_directory(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "driver.json").write_text(text)
    assert i18n.chosen(tmp_path) == ("fr_CA" if text and "fr-CA" in text else "en")


# --- sampling ------------------------------------------------------------------------------------


class Bench:
    def __init__(self) -> None:
        self.driver = StubDriver()
        self.emitted: list[tuple[type, dict[str, Any]]] = []
        self.sampler = Sampler(
            self.driver,
            Clock(),
            lambda kind, **fields: self.emitted.append((kind, fields)),
            lambda: {Metric("rtt_ms"): 3.0},
        )


def test_samples_every_ten_seconds_in_batches_the_first_at_once() -> None:
    """R-MNT-5."""
    bench = Bench()
    for half_second in range(int(EVERY_S * 2 * (BATCH + 1))):
        bench.sampler.tick(1000 + half_second / 2)
    sizes = [len(fields["samples"]) for kind, fields in bench.emitted if kind is Telemetry]
    assert sizes == [1, BATCH]
    bench.sampler.tick(1000 + EVERY_S * (BATCH + 2))
    bench.sampler.flush()
    bench.sampler.flush()
    sizes = [len(fields["samples"]) for kind, fields in bench.emitted]
    assert sizes == [1, BATCH, 1]


def test_values_are_numbers() -> None:
    bench = Bench()
    bench.driver.metrics[Metric("heater_duty")] = float("inf")
    assert bench.sampler.values() == {Metric("fan_rpm"): 900.0, Metric("rtt_ms"): 3.0}


def test_an_event_has_the_priority_of_its_code() -> None:
    bench = Bench()
    bench.sampler.event(DriverEvent(EventCode.LEAK_SUSPECTED, EventPhase.CLEARED, "a", 2.5))
    ((kind, fields),) = bench.emitted
    assert kind is Event
    assert fields == {
        "code": 106, "priority": "H", "phase": "cleared", "syringe": "a", "value": 2.5,
    }  # fmt: skip
