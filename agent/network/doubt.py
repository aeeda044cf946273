"""Who hangs up: the gate, which does not want this certificate, or something between? Pure.

Theory of operation. A gate closes on a certificate that was revoked, or replaced by a newer one,
before it reads a byte, and without a word. A firewall that lets the handshake through and cuts what
follows looks the same from here. So once both carriers were hung up on, the agent asks where it
gets an answer in words: the portal, by the call that every injector came by (`agent.renewal`). What
that says of the certificate is the finding from then on; where it finds nothing wrong, or gives no
answer, something on the network is to blame (R-CON-7).

The finding is about the certificate, so it is the same whatever carrier or server was tried last. A
connection that is accepted ends all doubt.
"""

from agent.network.findings import Code, Finding, hung_up
from agent.network.route import Carrier


class Doubt:
    def __init__(self) -> None:
        self._cut: set[Carrier] = set()
        self._verdict: Code | None = None
        self._asked = False

    @property
    def stands(self) -> bool:
        """Both carriers were hung up on: worth a question."""
        return len(self._cut) == len(Carrier)

    def met(self, carrier: Carrier, finding: Finding, *, over: bool) -> Finding:
        """What the end of an attempt by `carrier` means. `over`: by our own clock the certificate
        has ended, which says enough of a server that hangs up."""
        if hung_up(finding):
            self._cut.add(carrier)
            if over and not self._asked:
                return Finding(Code.OWN_EXPIRED, finding.facts)
        elif self._verdict is None:
            return finding
        if not self.stands:
            return finding
        return Finding(self._verdict or Code.CARRIERS_CUT, finding.facts)

    def judged(self, verdict: Code | None) -> None:
        """The portal was asked; None when it has nothing against the certificate."""
        self._verdict, self._asked = verdict, True

    def settled(self) -> None:
        """A server has accepted, or there is another certificate to show."""
        self._cut.clear()
        self._verdict, self._asked = None, False
