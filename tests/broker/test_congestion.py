"""How much a line may hold, by what it took (R-CON-4)."""

from broker.congestion import LEAST, SAMPLE_S, TARGET_S, Allowance


def fill(allowance: Allowance, rate: float, for_s: float, *, start: float = 0.0) -> float:
    """A line that always has more to take, at this rate; looked at every 5 ms."""
    now = start
    while now < start + for_s:
        allowance.look(now, int(rate * now), busy=True, round_trip_s=0.0)
        now += 0.005
    return now


def test_a_slow_line_is_given_little() -> None:
    allowance = Allowance()
    fill(allowance, 8_000, 5)
    assert allowance.bytes == LEAST


def test_a_fast_line_is_given_a_fifth_of_a_second_soon() -> None:
    allowance = Allowance()
    fill(allowance, 100e6, 1.2)
    assert 0.9 * 100e6 * TARGET_S < allowance.bytes < 1.1 * 100e6 * TARGET_S


def test_a_buffer_that_swallows_a_burst_does_not_pass_for_a_fast_line() -> None:
    allowance = Allowance()
    allowance.look(0.0, 0, busy=True, round_trip_s=0.0)
    allowance.look(0.001, 100_000, busy=False, round_trip_s=0.0)  # 100 MB/s
    assert allowance.bytes == 2 * LEAST
    now = 0.01
    allowance.look(now, 100_000, busy=True, round_trip_s=0.0)
    allowance.look(now + SAMPLE_S, 100_400, busy=True, round_trip_s=0.0)
    assert allowance.bytes == LEAST


def test_a_line_that_is_far_is_counted_over_its_round_trip() -> None:
    """Acknowledgements come in bursts, one for each round trip."""
    allowance = Allowance()
    for burst in range(12):
        for tick in range(60):
            now = burst * 0.3 + tick * 0.005
            allowance.look(now, burst * 300_000, busy=True, round_trip_s=0.3)
    assert 0.4e6 < allowance.bytes <= 1.1e6
