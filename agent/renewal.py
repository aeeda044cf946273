"""A credential for life: renewed with a new key at half-life, and a way back when it is over.

Theory of operation. A certificate lives from `begins` to `ends`. Past its half (plus a little that
differs between devices) the agent makes the next key, which is on disk before anything is said of
it, and asks with a durable `renewal`; the portal answers with `certificate`, again and again until
the new one was used. Asking again is harmless: the same key gets the same certificate.

What came is checked like an enrolment's (our key, our name, our root, and no sooner end). Then
`device.pem` is replaced, which is the swap, and the key takes its place: `agent.identity` says
why a crash anywhere leaves the old pair or the new one. The connection goes on with the old
certificate and moves to the new one when nobody is in a session, or after twelve hours.

A device that was off too long, or whose clock was wrong, finds its certificate over. It then asks
at the enrolment endpoint, where the same claim with the same key gives a new one (docs/ca.md). The
agent cannot know for certain why it gets no connection, so it asks there whenever it has had none
for a while: sooner when its own clock says that the certificate is over, within seconds when
servers hang up as they would on one that was revoked (`agent.network.doubt`), and in every case
ever more rarely. What the answer says of the certificate goes to the connection, for `status`. A
clock that is wrong never keeps it from trying the connection itself.

`Schedule` is pure; `Renewal` is the part that plugs into the agent (R-CON-8, R-CON-6).
"""

import asyncio
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from agent import identity, keystore
from agent.errors import AgentError, EnrolmentRefused, NetworkError, PeerError, StateError
from agent.i18n import _
from agent.identity import Identity
from agent.keystore import Slot
from agent.network.findings import judgement
from agent.store import get_meta, set_meta
from agent.wire.catalogue import EVENT_PRIORITY, EventCode, EventPhase, Outcome
from agent.wire.messages import Certificate, Event
from agent.wire.messages import Renewal as RenewalMessage

if TYPE_CHECKING:
    from agent.runtime import Agent

_RAISED = "certificate_expiring"  # in the store: the event stands
_CODE = EventCode.CERTIFICATE_EXPIRING

log = logging.getLogger(__name__)


class Want(Enum):
    NOTHING = "nothing"
    ASK = "ask"  # over the session
    RETURN = "return"  # at the enrolment endpoint


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of the boot clock, and parts of a certificate's life."""

    spread: float = 0.05  # of its life: how far the askings of a fleet lie apart
    warn: float = 0.25  # of its life left: event 702
    rest: float = 0.25  # of its life, on the boot clock, between one renewal and the next
    again_s: tuple[float, float] = (60.0, 3600.0)  # first and longest pause between askings
    lost_s: float = 600.0  # without a connection before the enrolment endpoint is asked
    lost_expired_s: float = 30.0  # the same when our clock says that the certificate is over
    doubted_s: tuple[float, float] = (1.0, 10.0)  # the same in doubt, so that a fleet spreads
    patience_s: float = 12 * 3600.0  # for sessions to end before the connection moves


class Schedule:
    """When one certificate wants something. `now` is seconds of the boot clock, `wall_ms` the wall
    clock, which may be wrong."""

    def __init__(
        self,
        *,
        begins_ms: int,
        ends_ms: int,
        now: float,
        timing: Timing,
        jitter: random.Random,
        fresh: bool = False,
    ) -> None:
        """`fresh`: this agent has just been given it. Then a clock that is far ahead does not make
        it ask for the next one at once, and so on without end."""
        life = max(ends_ms - begins_ms, 0)
        self._half_ms = begins_ms + int(life * (0.5 + jitter.uniform(0, timing.spread)))
        self._warn_ms = ends_ms - int(life * timing.warn)
        self._ends_ms = ends_ms
        self._timing = timing
        self._jitter = jitter
        self._online = False
        self._changed = now  # when the connection came or went
        self._rest_until = now + life / 1000 * timing.rest if fresh else 0.0
        self._not_before = 0.0  # the next asking
        self._pause = timing.again_s[0]
        self._doubted_s = jitter.uniform(*timing.doubted_s)

    def online(self, now: float, online: bool) -> None:
        """The connection came or went."""
        if online is not self._online:
            self._online, self._changed = online, now
            self._not_before, self._pause = 0.0, self._timing.again_s[0]

    def want(self, now: float, wall_ms: int, *, doubted: bool = False) -> Want:
        if now < self._not_before:
            return Want.NOTHING
        if self._online:
            due = wall_ms >= self._half_ms and now >= self._rest_until
            return Want.ASK if due else Want.NOTHING
        over = wall_ms >= self._ends_ms
        patience = self._timing.lost_expired_s if over else self._timing.lost_s
        if doubted:
            patience = min(patience, self._doubted_s)
        return Want.RETURN if now - self._changed >= patience else Want.NOTHING

    def asked(self, now: float) -> None:
        """It was done: wait with the next, longer each time, and never in step with others."""
        self._not_before = now + self._pause * self._jitter.uniform(0.5, 1)
        self._pause = min(self._pause * 2, self._timing.again_s[1])

    def expiring(self, wall_ms: int) -> bool:
        return wall_ms >= self._warn_ms


def next_request(known: Identity) -> bytes:
    """The CSR (DER) of the next key, which is made, and on disk, if there is none yet.

    Raises StateError."""
    keys = keystore.of(known.state)
    key = keys.get(Slot.NEXT) or keys.make(Slot.NEXT)
    return key.signing_request().public_bytes(Encoding.DER)


def accept(known: Identity, ders: Sequence[bytes]) -> Identity | None:
    """Take certificates from the portal for the next key, and swap the pair.

    None when they are of the pair in use, as when they come twice. Raises PeerError for what is not
    for us, StateError for the disk.
    """
    try:
        certificates = tuple(x509.load_der_x509_certificate(der) for der in ders)
    except ValueError as error:
        raise PeerError(_("The portal sent a certificate that cannot be read.")) from error
    following = keystore.of(known.state).get(Slot.NEXT)
    if certificates[0] == known.certificates[0]:
        return None
    if following is None:
        raise PeerError(_("The portal sent a certificate that nobody asked for."))
    try:
        device = identity.check_certificates(
            certificates, following.public_key(), known.provision.anchors
        )
    except StateError as error:
        raise PeerError(str(error)) from error
    if device != known.device:
        raise PeerError(_("The portal sent a certificate of another device."))
    if certificates[0].not_valid_after_utc < known.expires_at:
        raise PeerError(_("The portal sent a certificate that ends sooner than this one."))
    return identity.keep_certificates(known.state, certificates)


class Renewal:
    """The part of one agent. Its methods run in the loop; disk and keys are for a thread."""

    def __init__(
        self, agent: "Agent", *, timing: Timing | None = None, jitter: random.Random | None = None
    ) -> None:
        self._agent = agent
        self._timing = timing or Timing()
        self._jitter = jitter or random.SystemRandom()
        self._schedule = self._plan()
        self._busy = False
        self._raised: bool | None = None  # the event; None before it was read from the store
        self._move_by: float | None = None  # the connection still shows the certificate before
        self.trouble = ""  # why the way back is closed, for `status`

    def _plan(self, *, fresh: bool = False) -> Schedule:
        known = self._agent.identity
        schedule = Schedule(
            begins_ms=known.signed_ms,
            ends_ms=int(known.expires_at.timestamp() * 1000),
            now=self._agent.clock.now(),
            timing=self._timing,
            jitter=self._jitter,
            fresh=fresh,
        )
        schedule.online(self._agent.clock.now(), self._agent.online)
        return schedule

    def online(self, online: bool) -> None:
        self._schedule.online(self._agent.clock.now(), online)
        if online:
            self.trouble = ""

    def tick(self, now: float) -> None:
        wall_ms = self._agent.clock.wall_ms()
        self._warn(self._schedule.expiring(wall_ms))
        if self._move_by is not None and (now >= self._move_by or self._calm()):
            self._move_by = None
            self._agent.reconnect("the certificate was renewed")
        want = self._schedule.want(now, wall_ms, doubted=self._agent.doubted)
        if self._busy or want is Want.NOTHING or not self._agent.remote_enabled:
            return
        self._busy = True
        self._schedule.asked(now)
        self._agent.spawn(self._ask() if want is Want.ASK else self._return(), name=want.value)

    def _calm(self) -> bool:
        """Whether nobody would notice a new connection."""
        from agent.access.shell import Access

        try:
            return not self._agent.get(Access).desk.open
        except KeyError:
            return True

    # --- over the session ------------------------------------------------------------------------

    async def _ask(self) -> None:
        try:
            csr = await asyncio.to_thread(next_request, self._agent.identity)
            await self._agent.emit(RenewalMessage, csr=csr)
        except AgentError as error:  # the disk: the schedule tries again
            log.error("the certificate cannot be renewed: %s", error)
        finally:
            self._busy = False

    async def certificate(self, message: Certificate, _payload: bytes) -> None:
        """Raises PeerError, StateError; both are recorded by whoever called."""
        before = self._agent.identity
        new = await asyncio.to_thread(accept, before, message.certificates)
        if new is not None:
            await self._adopt(new)
            self._move_by = self._agent.clock.now() + self._timing.patience_s

    async def _adopt(self, new: Identity) -> None:
        self._agent.adopt(new)
        self._schedule = self._plan(fresh=True)
        self.trouble = ""
        leaf = new.certificates[0]
        log.info("the certificate was renewed until %s", new.expires_at.isoformat())
        await self._agent.record(
            "credential:renew",
            actor="agent",
            outcome=Outcome.ALLOWED,
            digest=leaf.fingerprint(SHA256()).hex(),
        )

    # --- at the enrolment endpoint ---------------------------------------------------------------

    async def _return(self) -> None:
        from agent import enrolment  # HTTP is seldom needed

        before = self._agent.identity
        try:
            new = await enrolment.come_back(before.state)
        except (NetworkError, EnrolmentRefused, StateError) as error:
            self.trouble = str(error)
            log.warning("no new certificate from the enrolment server: %s", error)
            if isinstance(error, EnrolmentRefused):
                self._agent.judged(judgement(error.reason))
        else:
            self.trouble = ""
            self._agent.judged(None)
            if new.servers != before.servers:
                self._agent.adopt(new)
            if new.certificates[0] != before.certificates[0]:
                await self._adopt(new)
                self._agent.reconnect("the certificate was given anew")
        finally:
            self._busy = False

    # --- event 702 -------------------------------------------------------------------------------

    async def open(self) -> None:
        """Read what stood before the restart."""
        self._raised = bool(await self._agent.store.write(lambda db: get_meta(db, _RAISED)))

    def _warn(self, expiring: bool) -> None:
        if self._raised is None or expiring is self._raised:
            return
        self._raised = expiring
        self._agent.emit(
            Event,
            code=_CODE,
            priority=EVENT_PRIORITY[_CODE],
            phase=EventPhase.RAISED if expiring else EventPhase.CLEARED,
            value=identity.days_left(self._agent.identity, self._agent.clock.wall_ms()),
        )
        self._agent.store.write(lambda db: set_meta(db, _RAISED, int(expiring)))

    def status(self) -> dict[str, Any]:
        return {"certificate_trouble": self.trouble} if self.trouble else {}


def install(agent: "Agent") -> None:
    """Plug into the agent."""
    plug(agent, Renewal(agent))


def plug(agent: "Agent", renewal: Renewal) -> None:
    agent.provide(renewal)
    agent.handle(Certificate, renewal.certificate)
    agent.on_tick(renewal.tick)
    agent.on_online(renewal.online)
    agent.status_from(renewal.status)
    agent.spawn(renewal.open(), name="renewal")
