"""The site's cap: a token bucket that lets what matters go first (R-CON-8)."""

from hypothesis import given
from hypothesis import strategies as st

from agent.network.pace import BURST_S, OVERHEAD, Cap
from agent.wire.frames import MAX_DATA
from agent.wire.pacer import MIN_FRAME, Turn

RATE = 64_000


def test_without_a_cap_nothing_waits() -> None:
    cap = Cap()
    cap.spent(0.0, 10**9)
    assert cap.turn(0.0) is Turn.BULK
    assert cap.wait(0.0) == cap.wait_for_any(0.0) == 0.0
    assert cap.frame == MAX_DATA


def test_bulk_gives_way_before_a_person_does_and_control_never() -> None:
    cap = Cap(RATE)
    seen = []
    for _each in range(12):
        seen.append(cap.turn(0.0))
        cap.spent(0.0, 4_000)
    assert seen == sorted(seen, reverse=True)
    assert set(seen) == set(Turn)


@given(
    st.integers(4096, 10**6),
    st.lists(st.tuples(st.floats(0, 0.2), st.integers(1, 60_000)), min_size=1, max_size=60),
)
def test_whoever_waits_for_the_cap_never_exceeds_it(
    rate: int, wishes: list[tuple[float, int]]
) -> None:
    """Over any time from the start: the rate, one burst, and the one message that went below."""
    cap, now, sent, largest = Cap(rate), 0.0, 0, 0
    for pause, size in wishes:
        now += pause
        now += cap.wait_for_any(now)
        assert cap.turn(now) is not Turn.CONTROL
        assert sent <= rate * (now + BURST_S) + largest + 1
        cap.spent(now, size)
        sent += size + OVERHEAD
        largest = max(largest, size + OVERHEAD)


@given(st.integers(4096, 10**6), st.lists(st.integers(1, 60_000), max_size=20))
def test_the_wait_is_no_longer_than_it_must_be(rate: int, sizes: list[int]) -> None:
    cap = Cap(rate)
    for size in sizes:
        cap.spent(0.0, size)
    for wait, turn in ((cap.wait(0.0), Turn.BULK), (cap.wait_for_any(0.0), Turn.INTERACTIVE)):
        if wait:
            assert cap.turn(0.0) < turn
            early, late = Cap(rate), Cap(rate)
            for each in (early, late):
                for size in sizes:
                    each.spent(0.0, size)
            assert early.turn(wait * 0.99 - 2e-6) < turn
            assert late.turn(wait) >= turn


def test_what_a_cap_keeps_is_in_use_again_after_a_pause() -> None:
    cap = Cap(RATE)
    for _each in range(100):
        cap.spent(0.0, 4_000)
    assert cap.turn(1.0) is Turn.CONTROL
    assert cap.turn(60.0) is Turn.BULK
    cap.set(None, 60.0)
    assert cap.turn(60.0) is Turn.BULK


def test_frames_are_cut_to_the_cap() -> None:
    assert Cap(4096).frame == MIN_FRAME
    assert MIN_FRAME < Cap(RATE).frame < Cap(2 * RATE).frame < MAX_DATA
    assert Cap(10**9).frame == MAX_DATA


def test_a_clock_that_goes_back_gives_nothing() -> None:
    cap = Cap(RATE, 100.0)
    for _each in range(20):
        cap.spent(100.0, 4_000)
    assert cap.turn(50.0) is Turn.CONTROL
