"""The connection's state machine: events in, effects out, no IO and no clock of its own.

Theory of operation. One connection at a time to one access server:

    idle ──start──▶ dialling ──tls──▶ connecting ──connack──▶ subscribing ──suback──▶ greeting
      ▲                │                  │                        │                     │
      └──── stop       └───────── lost, refused, late ─────────────┴──▶ waiting ◀──┐  welcome
                       ▲                                                  │        │     ▼
                       └───────────────── back-off over ──────────────────┘        └── online

Greeting: `hello` is on its way; the outbox waits for the portal's `hello` with its high-water mark
(or, once PUBACK says that `hello` was decided, five seconds for it) and then flows in order,
through a window of messages that await their PUBACK. A PUBACK that is late only fills the window:
the database behind the portal may be slow, and a reconnect would make that worse.

What does end a connection is silence. A ping goes out every 10 s; when nothing at all was heard for
14.5 s, or that ping's answer is as late though other things come in, the link is dead (R-CON-4).
The back-off has full jitter and a cap of 20 s, and grows until a connection has lasted, so that a
thousand injectors do not come back in step. Several servers share the cap: each is called as often
as if it were the only one, and the next is reached within 15 s whatever went before (R-CON-5).

A message that came down and cannot be read is reported and forgotten: it must not stop the next.
"""

import hashlib
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from agent import effects
from agent.effects import Effect, Phase
from agent.network.keepalive import Keepalive
from agent.outbox import Entry
from agent.wire import messages, topics
from agent.wire.messages import Message, MessageError, Rate, Welcome
from agent.wire.topics import STREAM, Direction

_P = Phase
_BROKEN = frozenset({_P.WAITING, _P.IDLE})
TRANSITIONS: dict[Phase, frozenset[Phase]] = {
    _P.IDLE: frozenset({_P.DIALLING, _P.IDLE}),
    _P.DIALLING: _BROKEN | {_P.CONNECTING},
    _P.CONNECTING: _BROKEN | {_P.SUBSCRIBING},
    _P.SUBSCRIBING: _BROKEN | {_P.GREETING},
    _P.GREETING: _BROKEN | {_P.ONLINE},
    _P.ONLINE: _BROKEN,
    _P.WAITING: frozenset({_P.DIALLING, _P.IDLE}),
}


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds, and bounds of the window."""

    dial: float = 8.0  # name, TCP and TLS together
    handshake: float = 5.0  # CONNACK, and again for SUBACK
    welcome: float = 5.0  # after the PUBACK of hello
    ping: float = 10.0  # to begin with: see agent.network.keepalive
    # The promise is 15 s (R-CON-4); the rest is for a timer that comes late on a busy machine.
    silence: float = 14.5
    heartbeat: float = 10.0
    back_off: float = 1.0
    back_off_cap: float = 20.0
    lasting: float = 10.0  # a connection that lasted this long resets the back-off
    stuck: float = 900.0  # no PUBACK at all for this long: the server forgot us
    # With another server to go to: no PUBACK at all, hello's included, for this long (to twice as
    # long, by chance) means that this server has lost the portal and the other may not have.
    elsewhere: float = 120.0
    # Messages that await their PUBACK. Half of what the gate takes before it stops reading: a slow
    # database must not keep it from reading our pings.
    window: int = 32
    window_bytes: int = 512 * 1024
    ahead: int = 128  # entries held in memory, sent or about to be


@dataclass(slots=True)
class _Flow:
    """The outbox as this connection sees it."""

    open: bool = False
    cursor: int = 0  # highest number loaded
    newest: int = 0  # highest number known to be on disk
    loading: bool = False
    ready: deque[Entry] = field(default_factory=deque)
    in_flight: dict[int, int] = field(default_factory=dict)  # seq: bytes
    in_flight_bytes: int = 0


class Core:
    """Each method is an event at `now` (seconds of the boot clock) and gives its effects."""

    def __init__(
        self,
        *,
        device: str,
        servers: int = 1,
        timing: Timing | None = None,
        jitter: random.Random | None = None,
    ) -> None:
        self.phase = Phase.IDLE
        self.reason = ""  # why the last connection ended
        self.server = 0
        self.rtt_ms: float | None = None
        self.since = 0.0  # of the phase
        self.outbox = ""  # set by the shell: the name that `hello` stated
        self._device = device
        self._servers = servers
        self._patience = 0.0  # how long to wait for any PUBACK on this connection
        self._greeted = False
        self._t = timing or Timing()
        self.keepalive = Keepalive(self._t.ping)
        self._jitter = jitter or random.SystemRandom()
        self._failures = 0
        self._connection = 0
        self._deadline: float | None = None  # of the phase
        self._heard = 0.0
        self._ping_due = 0.0
        self._ping_sent: float | None = None
        self._ping_quiet = 0.0  # how long nothing had come then
        self._heartbeat_due = 0.0
        self._progress = 0.0  # last PUBACK, or last time the window was empty
        self._live_until = 0.0
        self._live_every = 1.0
        self._live_due = 0.0
        self._flow = _Flow()
        self._effects: list[Effect] = []

    @property
    def connected(self) -> bool:
        """Whether messages may be published: the server has taken our subscription."""
        return self.phase in (Phase.GREETING, Phase.ONLINE)

    @property
    def in_flight(self) -> int:
        return len(self._flow.in_flight)

    @property
    def stalled(self) -> bool:
        """Online, with entries to send and none on its way: it waits for nobody but itself."""
        flow = self._flow
        return flow.open and not flow.in_flight and bool(flow.ready or flow.newest > flow.cursor)

    # --- the shell's life ------------------------------------------------------------------------

    def start(self, now: float) -> list[Effect]:
        if self.phase is Phase.IDLE:
            self._dial(now)
        return self._take()

    def stop(self, now: float) -> list[Effect]:
        if self.phase not in (Phase.IDLE, Phase.WAITING):
            self._effects.append(effects.Hangup("stopped"))
        self._enter(now, Phase.IDLE, "stopped", deadline=None)
        return self._take()

    def reconnect(self, now: float, reason: str) -> list[Effect]:
        """Drop the connection and make another, to the same server: it was our wish."""
        server = self.server
        self._break(now, reason, hang_up=True)
        self.server = server
        return self._take()

    def hurry(self, now: float) -> list[Effect]:
        """Try again at once: what kept the connection from being made may be gone."""
        if self.phase is Phase.WAITING:
            self._failures = 0
            self._dial(now)
        return self._take()

    def use(self, servers: int, current: int) -> None:
        """There are other servers to go to from the next failure on; the present one is number
        `current` of them."""
        self._servers = servers
        self.server = current

    def tick(self, now: float) -> list[Effect]:
        """Time passed. Call it at `next_deadline`, or more often."""
        if self._deadline is not None and now >= self._deadline:
            self._late(now)
        if self.connected:
            self._watch_link(now)
        if self.connected:
            self._timely(now)
        return self._take()

    def next_deadline(self) -> float | None:
        """When `tick` has something to do; None while idle."""
        due = [] if self._deadline is None else [self._deadline]
        if self.connected:
            due += [self._ping_due, self._heartbeat_due, self._heard + self._t.silence]
            if self._ping_sent is not None:
                due.append(self._ping_sent + self._t.silence)
            if self._live_until > 0:
                due.append(self._live_due)
        return min(due, default=None)

    # --- the link's events -----------------------------------------------------------------------

    def dialled(self, now: float) -> list[Effect]:
        """TCP and TLS stand; CONNECT is on its way."""
        if self.phase is Phase.DIALLING:
            self._enter(now, Phase.CONNECTING, "", deadline=self._t.handshake)
        return self._take()

    def accepted(self, now: float) -> list[Effect]:
        """CONNACK with code 0."""
        if self.phase is Phase.CONNECTING:
            self._effects.append(effects.Subscribe(topics.down_filter(self._device)))
            self._enter(now, Phase.SUBSCRIBING, "", deadline=self._t.handshake)
        return self._take()

    def subscribed(self, now: float) -> list[Effect]:
        """SUBACK that grants."""
        if self.phase is Phase.SUBSCRIBING:
            self._flow = _Flow(newest=self._flow.newest)
            self._connection += 1
            self._heard = self._progress = now
            self._ping_due = now + self.keepalive.every
            self._ping_sent = None
            self._heartbeat_due = now
            self._greeted = False
            self._patience = self._t.stuck
            if self._servers > 1:
                self._patience = self._jitter.uniform(self._t.elsewhere, 2 * self._t.elsewhere)
            self._effects.append(effects.Greet())
            wait = self._patience if self._servers > 1 else None
            self._enter(now, Phase.GREETING, "", deadline=wait)
        return self._take()

    def lost(self, now: float, reason: str) -> list[Effect]:
        """The connection ended, could not be made, or was refused."""
        self._break(now, reason, hang_up=False)
        return self._take()

    def heard(self, now: float) -> None:
        """Bytes came in."""
        self._heard = now

    def pong(self, now: float) -> None:
        if self._ping_sent is not None:
            self.rtt_ms = min((now - self._ping_sent) * 1000, 600_000)
            self._ping_sent = None

    def greeted(self, now: float) -> list[Effect]:
        """PUBACK of `hello`: the portal has decided on it, its own `hello` is due."""
        if self.phase is Phase.GREETING:
            self._greeted = True
            self._deadline = now + self._t.welcome
        return self._take()

    def acknowledged(self, now: float, seq: int) -> list[Effect]:
        """PUBACK of an entry: the portal has decided on it."""
        size = self._flow.in_flight.pop(seq, None)
        if size is not None:
            self._flow.in_flight_bytes -= size
            self._progress = now
            self._effects.append(effects.Acknowledge(seq))
            self._pump(now)
        return self._take()

    def received(self, now: float, topic: str, payload: bytes) -> list[Effect]:
        """A message came down."""
        parsed = topics.parse(topic)
        if parsed is None or parsed.direction is Direction.UP or parsed.device != self._device:
            self._unreadable("", 0, "topic", payload)
        elif parsed.type == STREAM:  # frames have a way of their own: this cannot be one
            self._unreadable(STREAM, 0, "frame", payload)
        else:
            try:
                message = messages.decode_down(parsed.type, parsed.version, payload)
            except MessageError as error:
                self._unreadable(parsed.type, parsed.version, error.reason.value, payload)
            else:
                self._message(now, message, payload)
        return self._take()

    # --- the outbox's events ---------------------------------------------------------------------

    def committed(self, now: float, entry: Entry) -> list[Effect]:
        """A new entry is on disk."""
        flow = self._flow
        flow.newest = max(flow.newest, entry.seq)
        follows = entry.seq == flow.cursor + 1 and not flow.loading
        if flow.open and follows and len(flow.ready) < self._t.ahead:
            flow.ready.append(entry)
            flow.cursor = entry.seq
        self._pump(now)
        return self._take()

    def fetched(
        self, now: float, connection: int, entries: Sequence[Entry], high: int
    ) -> list[Effect]:
        """What a Fetch found: the first `ahead` entries after its mark, of those up to `high`, the
        highest number on disk when it was read."""
        flow = self._flow
        if flow.loading and connection == self._connection:
            flow.loading = False
            flow.ready.extend(entries)
            # Up to here the disk was read. A number beyond it may be on disk by now and is sent in
            # its turn: the portal's mark is the highest number it decided on, so that one which is
            # left out would count as decided (R-CON-5).
            cut = len(entries) == self._t.ahead
            flow.cursor = max(flow.cursor, entries[-1].seq if cut else high)
            flow.newest = max(flow.newest, high)
            self._pump(now)
        return self._take()

    def unfetched(self, now: float, connection: int) -> list[Effect]:
        """A Fetch failed: begin again, after a pause, with another connection."""
        if self._flow.loading and connection == self._connection:
            self._break(now, "the outbox cannot be read", hang_up=True)
        return self._take()

    def renamed(self, now: float) -> list[Effect]:
        """The outbox has another name and counts from 1 again: greet the portal under it."""
        self._flow = _Flow()
        self._break(now, "the outbox has a new name", hang_up=True)
        return self._take()

    def state_changed(self, now: float) -> list[Effect]:
        """The clinical state is another: say so at once."""
        if self.connected:
            self._heartbeat(now)
        return self._take()

    # --- inside ----------------------------------------------------------------------------------

    def _take(self) -> list[Effect]:
        effects, self._effects = self._effects, []
        return effects

    def _enter(self, now: float, phase: Phase, reason: str, *, deadline: float | None) -> None:
        if phase not in TRANSITIONS[self.phase]:
            raise AssertionError(f"{self.phase} does not lead to {phase}")
        self.phase, self.since, self.reason = phase, now, reason or self.reason
        self._deadline = None if deadline is None else now + deadline
        self._effects.append(effects.Changed(phase, reason))

    def _dial(self, now: float) -> None:
        self._effects.append(effects.Dial(self.server))
        self._enter(now, Phase.DIALLING, "", deadline=self._t.dial)

    def _break(self, now: float, reason: str, *, hang_up: bool, late: bool = False) -> None:
        if self.phase in (Phase.IDLE, Phase.WAITING):
            return
        if self.connected and now - self.since >= self._t.lasting:
            self._failures = 0
        if self.connected:
            cut = None if hang_up else now - self._heard
            self.keepalive.ended((self._ping_sent or now) - self.since, self._quiet(), cut)
        if hang_up:
            self._effects.append(effects.Hangup(reason, late))
        most = self._t.back_off_cap / self._servers
        ceiling = min(most, self._t.back_off * 2 ** min(self._failures, 16))
        self._failures += 1
        self.server = (self.server + 1) % self._servers
        self.rtt_ms = None
        self._live_until = 0.0
        self._flow = _Flow(newest=self._flow.newest)
        self._enter(now, Phase.WAITING, reason, deadline=self._jitter.uniform(0, ceiling))

    def _quiet(self) -> float | None:
        """How long nothing had come when the ping left that the link broke on; None without one."""
        return None if self._ping_sent is None else self._ping_quiet

    def _late(self, now: float) -> None:
        """The phase's deadline passed."""
        if self.phase is Phase.WAITING:
            self._dial(now)
        elif self.phase is Phase.GREETING and self._greeted:
            self._open(now)  # the portal decided on hello and said nothing: go on without its mark
        else:
            self._break(now, f"{self.phase} took too long", hang_up=True, late=True)

    def _watch_link(self, now: float) -> None:
        # Compared as `next_deadline` computes it, or rounding would make the timer spin.
        overdue = self._ping_sent is not None and now >= self._ping_sent + self._t.silence
        if overdue or now >= self._heard + self._t.silence:
            self._break(now, "silent link", hang_up=True)
        elif self._flow.in_flight and now - self._progress >= self._patience:
            self._break(now, "no message was acknowledged", hang_up=True)
        elif now >= self._ping_due and self._ping_sent is None:
            self._effects.append(effects.Ping())
            self._ping_sent = now
            self._ping_quiet = now - self._heard
            self._ping_due = now + self.keepalive.every
        elif now >= self._ping_due:
            self._ping_due = now + self.keepalive.every

    def _timely(self, now: float) -> None:
        if now >= self._heartbeat_due:
            self._heartbeat(now)
        if self._live_until > 0 and now >= self._live_due:
            if now >= self._live_until:
                self._live_until = 0.0
                return
            self._effects.append(effects.SendLive())
            # Skip what was missed: a late sample is no reason for two.
            due = self._live_due + self._live_every
            self._live_due = due if due > now else now + self._live_every

    def _heartbeat(self, now: float) -> None:
        self._effects.append(effects.SendHeartbeat(self.rtt_ms))
        self._heartbeat_due = now + self._t.heartbeat

    def _message(self, now: float, message: Message, payload: bytes) -> None:
        if isinstance(message, Welcome):
            # A mark for another outbox, or one that comes when sending has begun, is of no use;
            # the next connection asks again.
            if self.phase is Phase.GREETING and message.outbox == self.outbox:
                self._effects.append(effects.Rewind(message.high))
            if self.phase is Phase.GREETING:
                self._open(now)
        if isinstance(message, Rate):
            if self.connected:
                self._live_every = 1 / message.hz
                self._live_until = now + message.for_s
                self._live_due = min(max(self._live_due, now), now + self._live_every)
            return
        self._effects.append(effects.Deliver(message, payload))

    def _unreadable(self, type: str, version: int, reason: str, payload: bytes) -> None:
        digest = hashlib.sha256(payload).hexdigest()
        self._effects.append(effects.Unreadable(type, version, reason, len(payload), digest))

    def _open(self, now: float) -> None:
        self._enter(now, Phase.ONLINE, "", deadline=None)
        self._flow.open = True
        self._flow.loading = True
        self._effects.append(effects.Fetch(self._connection, self._flow.cursor, self._t.ahead))

    def _pump(self, now: float) -> None:
        """Send what the window takes, and load more when memory runs out of it."""
        flow = self._flow
        if not flow.open:
            return
        if not flow.in_flight:
            self._progress = now
        while flow.ready and len(flow.in_flight) < self._t.window:
            size = len(flow.ready[0].payload)
            if flow.in_flight and flow.in_flight_bytes + size > self._t.window_bytes:
                break
            entry = flow.ready.popleft()
            flow.in_flight[entry.seq] = size
            flow.in_flight_bytes += size
            self._effects.append(effects.SendEntry(entry))
        if not flow.ready and not flow.loading and flow.newest > flow.cursor:
            flow.loading = True
            self._effects.append(effects.Fetch(self._connection, flow.cursor, self._t.ahead))
