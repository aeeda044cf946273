"""Idle time-outs shorter than the keepalive: the pings adapt (R-CON-7, R-CON-8)."""

from agent.network.keepalive import Keepalive


def test_two_connections_cut_for_their_silence_bring_the_pings_closer() -> None:
    keepalive = Keepalive(10.0)
    keepalive.ended(10.0, 9.8)
    assert (keepalive.every, keepalive.cut_after) == (10.0, None)
    keepalive.ended(10.0, 9.8)
    assert (keepalive.every, keepalive.cut_after) == (5.0, 9.8)


def test_down_to_a_bound() -> None:
    keepalive = Keepalive(10.0)
    for _each in range(40):
        keepalive.ended(keepalive.every, keepalive.every)
    assert keepalive.every == 2.0


def test_other_ends_say_nothing_about_silence() -> None:
    for lasted, quiet in ((3.0, None), (10.0, 0.4), (3600.0, 9.9)):
        keepalive = Keepalive(10.0)
        for _each in range(5):
            keepalive.ended(lasted, quiet)
        assert keepalive.every == 10.0


def test_a_time_out_that_resets_between_two_pings_brings_them_closer() -> None:
    """It ends the connection itself, so that no ping is under way; the silence is the same."""
    keepalive = Keepalive(10.0)
    keepalive.ended(6.4, None, 6.0)
    assert (keepalive.every, keepalive.cut_after) == (10.0, None)
    keepalive.ended(16.2, None, 6.1)
    assert (keepalive.every, keepalive.cut_after) == (5.0, 6.1)


def test_a_short_time_out_that_resets_is_met_step_by_step() -> None:
    keepalive = Keepalive(10.0)
    for _each in range(8):
        keepalive.ended(3.2, None, 3.0)
        if keepalive.every < 3.0:
            break
    assert keepalive.every == 2.5


def test_resets_after_other_silences_come_from_no_clock() -> None:
    keepalive = Keepalive(10.0)
    for silence in (6.0, 2.5, 9.0, 4.0, 0.5, 0.5, 0.5):
        keepalive.ended(12.0, None, silence)
    for _each in range(5):
        keepalive.ended(12.0, None, None)  # our own wish
    assert keepalive.every == 10.0


def test_a_connection_that_lasts_clears_the_suspicion() -> None:
    keepalive = Keepalive(10.0)
    for _each in range(5):
        keepalive.ended(10.0, 9.8)
        keepalive.ended(40.0, 9.8)
    assert keepalive.every == 10.0
