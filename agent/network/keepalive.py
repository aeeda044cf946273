"""How often to ping, where a firewall forgets connections that are silent for a while. Pure.

Theory of operation. A ping goes out every 10 s. A firewall whose idle time-out is shorter has then
forgotten the connection: the ping is answered with a reset, or not at all. Another kind resets the
connection itself as soon as the time is over, between two pings. One such end may be anything; a
second connection in a row that does not outlive its first pings, and breaks on a ping that left
after a silence or, between pings, after a silence as long as the last time, is taken for an idle
time-out, and the pings come twice as often from then on, down to one in 2 s. A connection that
lasts clears the suspicion; what was learnt stays until the agent starts anew, as a firewall does
not change its mind.
"""

SHORTEST = 5  # times as often as usual, and no more
STRIKES = 2
_YOUNG = 3  # a connection that outlives so many pings was not cut for its silence
_ALIKE = 0.2  # part by which two silences may differ and still come from one time-out


class Keepalive:
    """`every` is the time between pings, `cut_after` the silence that was not survived; seconds."""

    def __init__(self, usual: float) -> None:
        self.every = usual
        self.cut_after: float | None = None
        self._least = usual / SHORTEST
        self._strikes = 0
        self._last_cut: float | None = None

    def ended(self, lasted: float, quiet: float | None, cut: float | None = None) -> None:
        """A connection ended that had been well for `lasted` seconds. `quiet`: the silence before
        the ping that is still unanswered; None when there is no such ping, and then `cut` is the
        silence in which the other side ended it, or None where the end was our wish."""
        alike, self._last_cut = self._alike(cut), cut
        if lasted >= _YOUNG * self.every:
            self._strikes = 0
        elif quiet is not None and quiet >= self.every / 2:
            self._strike(quiet)
        elif quiet is None and cut is not None and cut >= self._least:
            # Servers are restarted, too: only the same silence twice tells of a clock.
            self._strikes = self._strikes if alike else 0
            self._strike(cut)

    def _alike(self, cut: float | None) -> bool:
        last = self._last_cut
        return cut is not None and last is not None and abs(cut - last) <= _ALIKE * max(cut, last)

    def _strike(self, silence: float) -> None:
        self._strikes += 1
        if self._strikes >= STRIKES and self.every > self._least:
            self.cut_after = silence
            self.every = max(self._least, self.every / 2)
            self._strikes = 0
