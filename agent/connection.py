"""Core, link and outbox of one agent, joined: carries events to the core and does its effects.

Nothing here decides; what can be decided without IO is in `agent.core`.
"""

import asyncio
import logging
from typing import Any, Protocol

from agent import core, effects
from agent.clock import Clock
from agent.core import Core
from agent.effects import Effect, Phase
from agent.identity import Identity, Server
from agent.link import Link, Token
from agent.network import date, words
from agent.network.carriers import Carriers
from agent.network.doubt import Doubt
from agent.network.findings import Code, Finding, Observation, classify
from agent.network.route import Carrier, Route
from agent.network.settings import Settings
from agent.outbox import Entry, Outbox
from agent.servers import ServerList
from agent.wire import messages, topics
from agent.wire.messages import Heartbeat, Hello, Live, Message, Up
from agent.wire.pacer import Turn

MAX_SLEEP_S = 1.0  # the loop's clock stops while the machine sleeps, the boot clock does not
DATE_S = 3.0  # for the vendor's clock, where ours may be wrong
_IN_TIME = 0.9  # of the core's deadline: an attempt says what is wrong before it is given up
_HELLO = "hello"  # the token of hello; entries have their number

log = logging.getLogger(__name__)


class Owner(Protocol):
    """What the connection needs of the agent. None of it may block or raise."""

    def hello(self) -> Hello: ...
    def heartbeat(self, rtt_ms: float | None) -> Heartbeat: ...
    def live(self) -> Live: ...
    def deliver(self, message: Message, payload: bytes) -> None: ...
    def unreadable(self, what: effects.Unreadable) -> None: ...
    def frame(self, frame: bytes) -> None: ...
    def next_frame(self, turn: Turn, most: int) -> bytes | None: ...
    def changed(self, phase: Phase, reason: str) -> None: ...
    def renamed(self) -> None: ...
    def carrier_worked(self, carrier: Carrier) -> None: ...


class Connection:
    """Made in a running loop, once the injector is enrolled."""

    def __init__(
        self,
        *,
        identity: Identity,
        clock: Clock,
        outbox: Outbox,
        owner: Owner,
        timing: core.Timing | None = None,
        settings: Settings | None = None,
        carriers: Carriers | None = None,
        servers: ServerList | None = None,
    ) -> None:
        self.finding: Finding | None = None  # why there is no connection, or ended; None: not known
        self._settings = settings or Settings()
        self._carriers = carriers or Carriers()
        self._doubt = Doubt()
        self._list = servers or ServerList(identity.servers)
        self._dial_list = self._list.dial  # as the core numbers it
        self._tried = 0  # number of the access server of the last attempt
        self._identity = identity
        self._context = identity.tls_context()
        self._clock = clock
        self._outbox = outbox
        self._owner = owner
        self._timing = timing or core.Timing()
        self._core = Core(device=identity.device, servers=len(self._dial_list), timing=self._timing)
        self._link = Link(identity.device, self, owner.next_frame)
        self._link.cap(self._settings.up_bytes_s)
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        outbox.on_committed = self._committed

    # --- for the agent ---------------------------------------------------------------------------

    @property
    def phase(self) -> Phase:
        return self._core.phase

    @property
    def online(self) -> bool:
        return self._core.connected

    @property
    def stalled(self) -> bool:
        """Whether the outbox has entries to send and nothing keeps it from sending them."""
        return self._core.stalled

    @property
    def rtt_ms(self) -> float | None:
        return self._core.rtt_ms

    @property
    def reason(self) -> str:
        """Why there is no connection, or why the last one ended."""
        return words.tell(self.finding) if self.finding else self._core.reason

    @property
    def server(self) -> str:
        """The access server in use or tried next, as `host:port`."""
        return str(self._dial_list[self._core.server])

    @property
    def tried(self) -> Server:
        """The access server of the last attempt."""
        return self._dial_list[self._tried]

    def renumber(self) -> None:
        """The list of servers has changed: a connection stays, a failure goes on by the new one."""
        before, self._dial_list = self._dial_list, self._list.dial
        next_one, tried = before[self._core.server], before[self._tried]
        for server in (next_one, tried):
            if server not in self._dial_list:
                self._dial_list += (server,)
        self._tried = self._dial_list.index(tried)
        self._core.use(len(self._dial_list), self._dial_list.index(next_one))
        self._carriers.renumber()

    @property
    def carrier(self) -> Carrier:
        """What carries MQTT now, or will at the next attempt."""
        return self._carriers.choose(self._tried if self.online else self._core.server)

    @property
    def keepalive_s(self) -> float:
        """Seconds between pings."""
        return self._core.keepalive.every

    @property
    def cut_after_s(self) -> float | None:
        """A silence that connections did not survive here; None where none is known."""
        return self._core.keepalive.cut_after

    @property
    def doubted(self) -> bool:
        """Servers hang up as they would on a certificate that is good no more: ask the portal."""
        return self._doubt.stands and not self.online

    def judged(self, verdict: Code | None) -> None:
        """The portal was asked what it has against our certificate; None: nothing."""
        self._doubt.judged(verdict)
        if verdict is not None and self.finding is not None and not self.online:
            self.finding = Finding(verdict, self.finding.facts)

    def use(self, settings: Settings) -> None:
        """Go by these from now on; another proxy is tried at once."""
        before, self._settings = self._settings, settings
        self._link.cap(settings.up_bytes_s)
        if before.proxy != settings.proxy and self._core.phase is not Phase.IDLE:
            now = self._clock.now()
            self._do(self._core.reconnect(now, "settings changed") + self._core.hurry(now))

    def start(self) -> None:
        self._do(self._core.start(self._clock.now()))

    async def close(self) -> None:
        """Say goodbye and stop; at most about a second."""
        if self._timer is not None:
            self._timer.cancel()
        await self._link.close()
        self._core.stop(self._clock.now())  # its effects are done: the link is closed

    async def pause(self) -> None:
        """Say goodbye and stay away until `start`; at most about a second."""
        await self._link.close()
        self._do(self._core.stop(self._clock.now()))

    def adopt(self, identity: Identity) -> None:
        """Show this identity from the next connection on. The same device's, with another pair."""
        self._context = identity.tls_context()
        self._identity = identity
        self._doubt.settled()

    def reconnect(self, reason: str) -> None:
        """Make the connection anew, if there is one."""
        if self._core.phase is not Phase.IDLE:
            self._do(self._core.reconnect(self._clock.now(), reason))

    def state_changed(self) -> None:
        self._do(self._core.state_changed(self._clock.now()))

    def publish(self, message: Up) -> None:
        """At QoS 0. Raises MessageError for a message outside its schema."""
        self._publish(message, None)

    def frames_ready(self) -> None:
        self._link.frames_ready()

    # --- events of the link ----------------------------------------------------------------------

    def dialled(self) -> None:
        self._do(self._core.dialled(self._clock.now()))

    def accepted(self) -> None:
        self.finding = None
        self._doubt.settled()
        news = self._carriers.worked(self._tried)
        if news is not None:
            self._owner.carrier_worked(news)
        self._do(self._core.accepted(self._clock.now()))

    def subscribed(self) -> None:
        self._do(self._core.subscribed(self._clock.now()))

    def lost(self, reason: str, seen: Observation | None = None) -> None:
        self._blame(seen)
        self._do(self._core.lost(self._clock.now(), reason))

    def heard(self) -> None:
        self._core.heard(self._clock.now())

    def pong(self) -> None:
        self._core.pong(self._clock.now())

    def acknowledged(self, token: Token) -> None:
        now = self._clock.now()
        if isinstance(token, int):
            self._do(self._core.acknowledged(now, token))
        else:
            self._do(self._core.greeted(now))

    def received(self, topic: str, payload: bytes) -> None:
        self._do(self._core.received(self._clock.now(), topic, payload))

    def frame(self, frame: bytes) -> None:
        """A stream frame, which the core has no part in: there may be thousands a second."""
        try:
            self._owner.frame(frame)
        except Exception:
            log.exception("a frame failed")

    # --- events of the outbox and the timer ------------------------------------------------------

    def _committed(self, entry: Entry) -> None:
        self._do(self._core.committed(self._clock.now(), entry))

    def _tick(self) -> None:
        self._timer = None
        self._do(self._core.tick(self._clock.now()))

    def _set_timer(self) -> None:
        due = self._core.next_deadline()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due is not None:
            delay = min(max(due - self._clock.now(), 0.0), MAX_SLEEP_S)
            self._timer = self._loop.call_later(delay, self._tick)

    # --- effects ---------------------------------------------------------------------------------

    def _do(self, wanted: list[Effect]) -> None:
        for effect in wanted:
            try:
                self._carry_out(effect)
            except Exception:
                # One message that cannot be made must not take the connection with it.
                log.exception("%s failed", type(effect).__name__)
        self._set_timer()

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case effects.SendEntry(entry):
                topic = topics.up(self._identity.device, entry.type, entry.version)
                self._link.publish(topic, entry.payload, entry.seq, may_wait=True)
            case effects.Acknowledge(seq):
                self._outbox.acknowledge(seq)
            case effects.Deliver(message, payload):
                self._owner.deliver(message, payload)
            case effects.Unreadable():
                self._owner.unreadable(effect)
            case effects.SendHeartbeat(rtt_ms):
                self._publish(self._owner.heartbeat(rtt_ms), None)
            case effects.SendLive():
                if self._link.spare:
                    self._publish(self._owner.live(), None)
            case effects.Fetch(connection, after, limit):
                self._fetch(connection, after, limit)
            case effects.Rewind(high):
                self._rewind(high)
            case _:
                self._connect(effect)

    def _connect(self, effect: Effect) -> None:
        match effect:
            case effects.Dial(server):
                self._dial(server)
            case effects.Hangup(reason, late):
                log.info("hanging up: %s", reason)
                self._blame(self._link.overdue() if late else None)
                self._link.hang_up()
            case effects.Subscribe(topic_filter):
                self._link.subscribe(topic_filter)
            case effects.Ping():
                self._link.ping()
            case effects.Greet():
                self._core.outbox = self._outbox.id
                self._publish(self._owner.hello(), _HELLO)
            case effects.Changed(phase, reason):
                self._link.stream(self._core.connected)
                self._owner.changed(phase, reason)

    def _dial(self, server: int) -> None:
        self._tried = server
        route = Route(self._dial_list[server], self._carriers.choose(server), self._settings.proxy)
        provision, proxy = self._identity.provision, self._settings.proxy
        self._link.dial(
            route,
            self._context,
            self._timing.dial * _IN_TIME,
            lambda: date.served(provision, proxy, timeout_s=DATE_S),
        )

    def _blame(self, seen: Observation | None) -> None:
        """An attempt, or a connection, ended: what does it say, and what to try next?"""
        if seen is None:
            self.finding = None
            return
        self._carriers.failed(self._tried, seen.stage, seen.failure)
        over = self._clock.wall_ms() >= self._identity.expires_at.timestamp() * 1000
        self.finding = self._doubt.met(seen.carrier, classify(seen), over=over)

    def _publish(self, message: Up, token: Token | None) -> None:
        payload = messages.encode(message)
        topic = topics.up(self._identity.device, message.TYPE, message.VERSION)
        self._link.publish(topic, payload, token)

    def _fetch(self, connection: int, after: int, limit: int) -> None:
        def done(future: asyncio.Future[tuple[list[Entry], int]]) -> None:
            now = self._clock.now()
            if future.cancelled() or future.exception() is not None:  # the store has logged it
                self._do(self._core.unfetched(now, connection))
            else:
                self._do(self._core.fetched(now, connection, *future.result()))

        self._outbox.waiting(after, limit).add_done_callback(done)

    def _rewind(self, high: int) -> None:
        def done(future: asyncio.Future[Any]) -> None:
            if not future.cancelled() and future.result():
                self._owner.renamed()
                self._do(self._core.renamed(self._clock.now()))

        self._outbox.rewind(high).add_done_callback(done)
