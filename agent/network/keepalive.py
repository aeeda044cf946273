"""How often to ping, where a firewall forgets connections that are silent for a while. Pure.

Theory of operation. A ping goes out every 10 s. A firewall whose idle time-out is shorter has then
forgotten the connection: the ping is answered with a reset, or not at all. One such end may be
anything; a second connection in a row that does not outlive its first pings and breaks on one that
left after a silence is taken for an idle time-out, and the pings come twice as often from then on,
down to one in 2 s. A connection that lasts clears the suspicion; what was learnt stays until the
agent starts anew, as a firewall does not change its mind.
"""

SHORTEST = 5  # times as often as usual, and no more
STRIKES = 2
_YOUNG = 3  # a connection that outlives so many pings was not cut for its silence


class Keepalive:
    """`every` is the time between pings, `cut_after` the silence that was not survived; seconds."""

    def __init__(self, usual: float) -> None:
        self.every = usual
        self.cut_after: float | None = None
        self._least = usual / SHORTEST
        self._strikes = 0

    def ended(self, lasted: float, quiet: float | None) -> None:
        """A connection ended that had been well for `lasted` seconds. `quiet`: the silence before
        the ping that is still unanswered; None when there is no such ping."""
        if lasted >= _YOUNG * self.every:
            self._strikes = 0
        elif quiet is not None and quiet >= self.every / 2:
            self._strikes += 1
            if self._strikes >= STRIKES and self.every > self._least:
                self.cut_after = quiet
                self.every = max(self._least, self.every / 2)
                self._strikes = 0
