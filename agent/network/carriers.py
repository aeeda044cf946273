"""Which carrier to try at which server: MQTT straight over TLS, or in a websocket. Pure.

Theory of operation. A firewall that lets TLS through on 443 and refuses MQTT shows itself after TCP
stands: the handshake is cut or never answered (it read the ALPN), or CONNECT is. So a failure from
TLS on that a carrier can be to blame for makes the next attempt at *that* server use the other one;
two servers are each tried with both before either is tried again the same way. What cannot be the
carrier's fault (name, port, proxy, a certificate on either side, a refusal in words) changes
nothing.

What worked comes first from then on, at every server and after a restart, for `REMEMBERED_MS`; then
MQTT itself has its turn again, so that a firewall put right does not leave an injector behind.
"""

from agent.network.findings import Failure
from agent.network.route import Carrier, Stage

REMEMBERED_MS = 7 * 24 * 3600 * 1000

_BLAMED = {
    Stage.TLS: frozenset({Failure.TIMEOUT, Failure.CUT, Failure.PROTOCOL}),
    Stage.UPGRADE: frozenset(Failure),
    Stage.MQTT: frozenset({Failure.TIMEOUT, Failure.CUT, Failure.PROTOCOL}),
}


def keep(carrier: Carrier, now_ms: int) -> str:
    """What to write down when `worked` has news."""
    return f"{carrier} {now_ms}"


class Carriers:
    def __init__(self) -> None:
        self._first = Carrier.MQTT
        self._next: dict[int, Carrier] = {}

    def recall(self, kept: str, now_ms: int) -> None:
        """Begin with what `keep` gave in an earlier run; wall time in milliseconds."""
        name, _space, since = kept.partition(" ")
        if name in list(Carrier) and since.isdigit() and 0 <= now_ms - int(since) < REMEMBERED_MS:
            self._first = Carrier(name)

    def renumber(self) -> None:
        """The servers have other numbers."""
        self._next.clear()

    def choose(self, server: int) -> Carrier:
        """For the next attempt at server number `server`."""
        return self._next.get(server, self._first)

    def failed(self, server: int, stage: Stage, failure: Failure) -> None:
        """The attempt at `server` with what `choose` gives for it came to nothing."""
        if failure in _BLAMED.get(stage, ()):
            self._next[server] = self.choose(server).other

    def worked(self, server: int) -> Carrier | None:
        """The server accepted. Gives the carrier when that is news worth keeping."""
        carrier = self.choose(server)
        news = carrier is not self._first
        self._first = carrier
        self._next.clear()
        return carrier if news else None
