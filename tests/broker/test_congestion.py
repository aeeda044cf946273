"""How much a line may hold, by what it took (R-CON-4)."""

import socket

import pytest

from broker import congestion
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


def test_the_kernel_is_asked_when_there_may_be_much_and_not_at_each_keystroke(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = 0
    ask = congestion._waiting

    def counted(fd: int) -> int:
        nonlocal asked
        asked += 1
        return ask(fd)

    monkeypatch.setattr(congestion, "_waiting", counted)
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
        with near, far:
            line, written = congestion.Line(near.fileno()), 0
            for _ in range(400):
                assert line.has_room(written / 1e6, written, 0)
                near.sendall(b"k" * 100)
                written += 100
                far.recv(100)
            assert 5 <= asked <= 40  # once for each LEAST of bytes
            asked = 0
            near.setblocking(False)
            try:
                while True:  # nobody reads any more
                    written += near.send(bytes(4096))
            except BlockingIOError:
                pass
            assert not line.has_room(1.0, written, 0)
            assert not line.has_room(1.001, written, 0)
            assert asked == 2
