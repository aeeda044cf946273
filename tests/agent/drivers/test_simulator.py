"""The three simulated product lines: believable figures, legal codes, nothing by chance (R-CON-1,
R-MNT-5)."""

import contextlib
import itertools
import math
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.drivers import ct_dual, ct_multi, mr_dual
from agent.drivers.base import DriverError, DriverEvent, DriverSettings, Fault
from agent.drivers.fluidics import PRESSURE_CAP_KPA
from agent.drivers.simulator import Simulator
from agent.wire.catalogue import (
    EVENT_PRIORITY,
    ClinicalState,
    EventCode,
    EventPhase,
    Level,
    Metric,
)

LINES = (ct_multi, ct_dual, mr_dual)
START = 5_000.0
QUIET = 0.01  # a pace at which nobody injects for hours

each_line = pytest.mark.parametrize("line", LINES, ids=lambda line: line.MODEL.product_line.value)


def make(line: ModuleType, *, seed: int = 1, pace: float = 1.0, serial: str = "S-1") -> Simulator:
    simulator = Simulator(
        line.MODEL,
        DriverSettings(
            product_line=line.MODEL.product_line,
            serial=serial,
            services={"ssh": 40022, "console": 40023, "web": 40080},
            seed=seed,
            pace=pace,
        ),
    )
    simulator.advance(START)
    return simulator


def run(simulator: Simulator, until: float, *, since: float = 0.0) -> list[DriverEvent]:
    """Advance second by second; times count from START."""
    events: list[DriverEvent] = []
    at = since
    while at < until:
        at = min(at + 1.0, until)
        events += simulator.advance(START + at)
    return events


def codes(events: list[DriverEvent], phase: EventPhase = EventPhase.RAISED) -> set[EventCode]:
    return {event.code for event in events if event.phase is phase}


def reading(simulator: Simulator, name: str) -> float:
    return simulator.values()[Metric(name)]


RANGES = {
    "motor_current_a": (0.2, 6),
    "plunger_position_mm": (0, 126),
    "plunger_following_error_mm": (0, 13),
    "flow_set_ml_s": (0, 10),
    "flow_actual_ml_s": (0, 10),
    "pressure_kpa": (0, PRESSURE_CAP_KPA),
    "pressure_limit_kpa": (1000, 2100),
    "volume_remaining_ml": (0, 200),
    "pressure_zero_offset_kpa": (-30, 30),
    "drive_temp_c": (20, 60),
    "heater_temp_c": (20, 42),
    "heater_duty": (0, 1),
    "air_signal": (0, 1),
    "air_selftest": (0, 1),
    "battery_soc": (0, 100),
    "battery_v": (18, 30),
    "optical_margin_db": (0, 20),
    "supply_24v": (0, 25),
    "cpu_load": (0, 1),
    "fan_rpm": (1000, 5000),
    "dayset_hours_left": (0, 24),
}


def check_values(simulator: Simulator) -> None:
    for metric, value in simulator.values().items():
        assert math.isfinite(value), metric
        base = metric.removesuffix("_a").removesuffix("_b").removesuffix("_c")
        name = base if base in RANGES else metric.value
        if name in RANGES:
            low, high = RANGES[name]
            assert low <= value <= high, (metric, value)


@given(
    line=st.sampled_from(LINES),
    seed=st.integers(0, 2**31),
    faults=st.lists(
        st.tuples(st.sampled_from(list(Fault)), st.floats(0.3, 40)), min_size=1, max_size=5
    ),
)
@settings(max_examples=12, deadline=None)
def test_whatever_is_injected_the_figures_stay_in_their_ranges(
    line: ModuleType, seed: int, faults: list[tuple[Fault, float]]
) -> None:
    simulator = make(line, seed=seed, pace=10)
    at, raised = 0.0, set()
    for fault, gap in [*faults, (None, 1.0)]:
        for event in run(simulator, at + gap, since=at):
            assert EVENT_PRIORITY[event.code] is event.priority
            assert event.syringe in (None, *simulator._drives)
            key = (event.code, event.syringe)
            # Raised once, cleared once, in turn.
            assert (key in raised) == (event.phase is EventPhase.CLEARED)
            raised ^= {key}
            assert event.value is None or math.isfinite(event.value)
        check_values(simulator)
        at += gap
        if fault is not None:
            with contextlib.suppress(DriverError):
                simulator.simulate(fault.value)
    assert {(e.code, e.syringe) for e in simulator.conditions()} == raised


@each_line
def test_the_same_seed_gives_the_same_day_however_often_it_is_looked_at(line: ModuleType) -> None:
    often, seldom = make(line, seed=7, pace=30), make(line, seed=7, pace=30)
    events = [event for tick in range(1, 601) for event in often.advance(START + tick * 0.1)]
    assert seldom.advance(START + 23.45) + seldom.advance(START + 60) == events
    assert seldom.values() == often.values()
    assert seldom.state is often.state


@each_line
def test_another_seed_or_serial_gives_another_day(line: ModuleType) -> None:
    values = []
    for seed, serial in ((1, "S-1"), (2, "S-1"), (1, "S-2")):
        simulator = make(line, seed=seed, serial=serial)
        run(simulator, 10)
        values.append(simulator.values())
    assert values[0] != values[1] != values[2] != values[0]


@each_line
def test_a_day_goes_through_every_state_in_order(line: ModuleType) -> None:
    simulator = make(line, pace=20)
    seen = [simulator.state]
    for tick in range(1, 1600):
        simulator.advance(START + tick * 0.2)
        if simulator.state is not seen[-1]:
            seen.append(simulator.state)
    s = ClinicalState
    assert seen[:2] == [s.INITIALISING, s.IDLE]
    follows = {
        s.INITIALISING: {s.IDLE}, s.IDLE: {s.FILLING}, s.FILLING: {s.PRIMING},
        s.PRIMING: {s.READY}, s.READY: {s.ARMED}, s.ARMED: {s.INJECTING},
        s.INJECTING: {s.HOLD, s.COMPLETE}, s.HOLD: {s.INJECTING}, s.COMPLETE: {s.IDLE},
    }  # fmt: skip
    for before, after in itertools.pairwise(seen):
        assert after in follows[before]
    assert s.COMPLETE in seen
    assert reading(simulator, "injections_today") >= 1


@each_line
def test_most_of_the_first_minutes_are_idle(line: ModuleType) -> None:
    """So that a newcomer's first request for access is not turned away."""
    simulator = make(line)
    run(simulator, 230)
    assert simulator.state is ClinicalState.IDLE


@each_line
def test_charts_move_at_rest_and_pressure_follows_flow(line: ModuleType) -> None:
    simulator = make(line, pace=25)
    points = []
    for tick in range(1, 1500):
        simulator.advance(START + tick * 0.1)
        points.append((simulator.state, simulator.values()))
    idle = [v for state, v in points if state is ClinicalState.IDLE]
    assert len({v[Metric("pressure_kpa_a")] for v in idle}) > 20
    contrast = [
        v for state, v in points
        if state is ClinicalState.INJECTING and v[Metric("flow_actual_ml_s_a")] > 0.9
    ]  # fmt: skip
    assert contrast
    flow = [v[Metric("flow_actual_ml_s_a")] for v in contrast]
    pressure = [v[Metric("pressure_kpa_a")] for v in contrast]
    assert max(pressure) > 150
    assert min(pressure) > max(v[Metric("pressure_kpa_a")] for v in idle)
    assert max(flow) <= max(shot.flow_ml_s for p in line.MODEL.procedures for shot in p.shots) * 1.1


@each_line
def test_volume_and_plunger_agree(line: ModuleType) -> None:
    simulator = make(line, pace=30)
    for tick in range(1, 120):
        simulator.advance(START + tick)
        for reservoir in line.MODEL.reservoirs:
            volume = reading(simulator, f"volume_remaining_ml_{reservoir.syringe}")
            position = reading(simulator, f"plunger_position_mm_{reservoir.syringe}")
            assert volume + position * reservoir.ml_per_mm == pytest.approx(
                reservoir.capacity_ml, abs=0.01
            )


@each_line
def test_a_line_has_its_own_metrics_and_no_other(line: ModuleType) -> None:
    values = make(line).values()
    names = {metric.value for metric in values}
    syringes = {reservoir.syringe for reservoir in line.MODEL.reservoirs}
    assert {n[-1] for n in names if n.startswith("pressure_kpa_")} == syringes
    assert ("heater_temp_c" in names) == (line is not mr_dual)
    assert ("battery_soc" in names) == ("optical_margin_db" in names) == (line is mr_dual)
    assert ("dayset_hours_left" in names) == (line is ct_multi)
    assert not names & {"rtt_ms", "cert_days_left", "clock_skew_ms"}  # the agent's own


@each_line
def test_services_carry_their_levels(line: ModuleType) -> None:
    """Whatever can yield a shell is `os` (R-ACC-6)."""
    services = make(line).services()
    assert {n: s.level for n, s in services.items()} == {
        "ssh": Level.OS,
        "console": Level.OS,
        "web": Level.SERVICE,
    }
    assert services["ssh"].port == 40022


def test_a_service_that_nobody_classified_needs_the_highest_level() -> None:
    chosen = DriverSettings(
        product_line=ct_dual.MODEL.product_line, serial="S", services={"files": 1}
    )
    assert ct_dual.create(chosen).services()["files"].level is Level.OS


# --- faults ------------------------------------------------------------------------------------


@each_line
def test_an_occlusion_at_rest_shows_within_seconds_and_clears(line: ModuleType) -> None:
    simulator = make(line, pace=QUIET)
    run(simulator, 10)
    simulator.simulate("occlusion")
    events = run(simulator, 15, since=10)
    assert {EventCode.OCCLUSION_SUSPECTED, EventCode.OVERPRESSURE} <= codes(events)
    assert simulator.state is ClinicalState.FAULT
    assert reading(simulator, "flow_set_ml_s_a") == 0
    simulator.simulate("idle")
    events = run(simulator, 20, since=15)
    assert {EventCode.OCCLUSION_SUSPECTED, EventCode.OVERPRESSURE} <= codes(
        events, EventPhase.CLEARED
    )
    assert simulator.state is ClinicalState.IDLE


@each_line
def test_a_fault_can_be_injected_again_and_again(line: ModuleType) -> None:
    simulator = make(line, pace=QUIET)
    run(simulator, 60)
    at = 60.0
    for _round in range(6):
        simulator.simulate("stall")
        events = run(simulator, at + 10, since=at)
        assert EventCode.STALL in codes(events)
        simulator.simulate("idle")  # and at once the next, before the simulator has looked
        at += 10


@each_line
def test_a_stall_stops_the_drive(line: ModuleType) -> None:
    simulator = make(line, pace=QUIET)
    run(simulator, 10)
    simulator.simulate("stall")
    events, currents = [], []
    for tick in range(50):
        events += simulator.advance(START + 10 + tick * 0.1)
        currents.append(reading(simulator, "motor_current_a_a"))
    assert EventCode.STALL in codes(events)
    assert max(currents) > 4
    assert simulator.state is ClinicalState.FAULT
    simulator.simulate("idle")
    assert EventCode.STALL in codes(run(simulator, 20, since=15), EventPhase.CLEARED)


@each_line
def test_an_occlusion_during_an_injection_stops_it(line: ModuleType) -> None:
    simulator = make(line, pace=30)
    at = 0.0
    while simulator.state is not ClinicalState.INJECTING:
        at += 0.5
        simulator.advance(START + at)
    aborted = reading(simulator, "injections_aborted")
    simulator.simulate("occlusion")
    events = run(simulator, at + 12, since=at)
    assert EventCode.OCCLUSION_SUSPECTED in codes(events)
    assert simulator.state is ClinicalState.FAULT
    assert reading(simulator, "injections_aborted") == aborted + 1


def test_a_fault_is_put_right_in_time_by_itself() -> None:
    simulator = make(ct_dual, pace=QUIET)
    run(simulator, 10)
    simulator.simulate("stall")
    run(simulator, 700, since=10)
    assert simulator.state is ClinicalState.IDLE
    assert EventCode.STALL not in {event.code for event in simulator.conditions()}


@pytest.mark.parametrize("line", [ct_multi, ct_dual])
def test_a_broken_heater_cools_slowly_and_warms_again(line: ModuleType) -> None:
    simulator = make(line, pace=QUIET)
    run(simulator, 10)
    simulator.simulate("heater")
    run(simulator, 12, since=10)
    assert 35 < reading(simulator, "heater_temp_c") < 37.2  # a lag, no step
    assert EventCode.HEATER_OUT_OF_RANGE in codes(run(simulator, 40, since=12))
    assert simulator.state is ClinicalState.IDLE
    assert reading(simulator, "heater_duty") > 0.9
    simulator.simulate("idle")
    events = run(simulator, 90, since=40)
    assert EventCode.HEATER_OUT_OF_RANGE in codes(events, EventPhase.CLEARED)


def test_cold_contrast_needs_more_pressure() -> None:
    def peak(*, cold: bool) -> float:
        simulator = make(ct_dual, pace=30, seed=3)
        if cold:
            simulator.simulate("heater")
            for part in simulator._parts:
                part._temperature = 24.0  # type: ignore[attr-defined]
        highest = 0.0
        for tick in range(600):
            simulator.advance(START + tick * 0.1)
            highest = max(highest, reading(simulator, "pressure_kpa_a"))
        return highest

    assert peak(cold=True) > 1.2 * peak(cold=False)


def test_flow_backs_off_near_the_limit() -> None:
    simulator = make(ct_dual, pace=30, seed=3)
    simulator.simulate("heater")
    for part in simulator._parts:
        part._temperature = 10.0  # type: ignore[attr-defined]
    events = []
    limited = False
    for tick in range(900):
        events += simulator.advance(START + tick * 0.1)
        wanted, got = (
            reading(simulator, "flow_set_ml_s_a"),
            reading(simulator, "flow_actual_ml_s_a"),
        )
        limited = limited or 0 < got < 0.8 * wanted
        assert reading(simulator, "pressure_kpa_a") <= PRESSURE_CAP_KPA
    assert limited
    assert EventCode.FLOW_LIMITED in codes(events)
    assert EventCode.FLOW_LIMITED in codes(events, EventPhase.CLEARED)
    assert EventCode.OVERPRESSURE not in codes(events)


def test_on_battery_it_runs_down() -> None:
    simulator = make(mr_dual, pace=QUIET)
    run(simulator, 10)
    simulator.simulate("battery")
    assert EventCode.ON_BATTERY in codes(run(simulator, 12, since=10))
    assert reading(simulator, "supply_24v") == 0
    assert EventCode.BATTERY_CRITICAL in codes(run(simulator, 190, since=12))
    simulator.simulate("idle")
    assert EventCode.ON_BATTERY in codes(run(simulator, 195, since=190), EventPhase.CLEARED)


@each_line
def test_a_fault_of_a_part_that_the_line_lacks_is_refused_with_a_remedy(line: ModuleType) -> None:
    lacking = "heater" if line is mr_dual else "battery"
    with pytest.raises(DriverError, match=r"Choose one of: occlusion, stall, (battery|heater)"):
        make(line).simulate(lacking)


def test_an_unknown_fault_is_refused_with_a_remedy() -> None:
    with pytest.raises(DriverError, match="Choose one of"):
        make(ct_dual).simulate("patient\n; rm -rf")


@each_line
def test_armed_stays_armed_until_idle(line: ModuleType) -> None:
    simulator = make(line, pace=50)
    run(simulator, 5)
    simulator.simulate("armed")
    run(simulator, 120, since=5)
    assert simulator.state is ClinicalState.ARMED
    simulator.simulate("idle")
    assert simulator.state is ClinicalState.IDLE


def test_what_is_broken_cannot_be_armed() -> None:
    simulator = make(ct_dual, pace=QUIET)
    run(simulator, 10)
    simulator.simulate("stall")
    run(simulator, 20, since=10)
    with pytest.raises(DriverError, match="first simulate idle"):
        simulator.simulate("armed")


@each_line
def test_no_patient_puts_a_stuck_injector_in_service(line: ModuleType) -> None:
    """R-ACC-7."""
    simulator = make(line, pace=QUIET)
    run(simulator, 5)
    simulator.simulate("armed")
    simulator.declare_no_patient()
    run(simulator, 30, since=5)
    assert simulator.state is ClinicalState.SERVICE
    simulator.simulate("idle")
    assert simulator.state is ClinicalState.IDLE


def test_nobody_declares_no_patient_during_an_injection() -> None:
    simulator = make(ct_dual, pace=30)
    at = 0.0
    while simulator.state is not ClinicalState.INJECTING:
        at += 0.5
        simulator.advance(START + at)
    with pytest.raises(DriverError, match="stop the injection there first"):
        simulator.declare_no_patient()


# --- history and time --------------------------------------------------------------------------


@each_line
def test_history_is_what_was_seen(line: ModuleType) -> None:
    simulator = make(line, pace=20)
    events = run(simulator, 130)
    history = simulator.history(1)
    assert [entry.event for entry in history.events] == events
    times = [point.at_s for point in history.points]
    assert times == sorted(times)
    assert len(times) == 26
    assert history.points[-1].values == simulator.values()


def test_history_is_bounded_and_grows_coarse() -> None:
    simulator = make(ct_dual, pace=QUIET)
    simulator._fine = type(simulator._fine)(maxlen=10)
    run(simulator, 300)
    times = [point.at_s - START for point in simulator.history(1).points]
    assert times[:3] == pytest.approx([30, 60, 90])
    assert times[-2:] == pytest.approx([295, 300])


def test_a_long_sleep_is_skipped_and_a_clock_gone_back_does_nothing() -> None:
    simulator = make(ct_dual)
    run(simulator, 5)
    simulator.advance(START + 100_000)
    assert simulator._steps == 50 + 600
    before = simulator.values()
    assert simulator.advance(START) == []
    assert simulator.values() == before
