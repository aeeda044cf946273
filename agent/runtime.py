"""One agent: driver, clocks, outbox, audit chain, connection and local commands on one event loop.

Parts of the agent (access, streams, jobs) plug in here. A part is a function
`install(agent: Agent) -> None`, called once the injector has its identity and before the first
connection. It registers what it answers to:

    agent.handle(AccessRequest, fn)     fn(message, payload) when such a message came down
    agent.control.register("op", fn)    fn(args) for a local command
    agent.on_tick(fn)                   fn(now) twice a second; now in seconds of the boot clock
    agent.on_clinical_state(fn)         fn(state) when the clinical state changes
    agent.on_online(fn)                 fn(online) when the connection comes or goes
    agent.stream_source(fn)             fn(turn, most) -> next frame whose turn it is, with at most
                                        so many bytes of data, or None; pulled as the path takes it
    agent.on_frame(fn)                  fn(frame) for each frame that came down
    agent.on_stop(fn)                   async fn() before the store closes; no tasks any more
    agent.status_from(fn)               fn() -> fields to add to `status`
    agent.roster_version = fn           fn() -> version, for `hello`; entitlement_version as well
    agent.provide(obj), agent.get(cls)  so that parts find each other

and it acts through:

    agent.emit(Event, code=…, …)        a durable message; await it to know that it is on disk
    agent.record("access:approve", …)   an audit entry; await it before acting on it (R-ACC-10)
    agent.accept("job", ref, payload)   the durable `accepted` for a message that came down
    agent.send_now(Live, …)             QoS 0, if there is a connection
    agent.frames_ready()                the stream source has something
    agent.look()                        the driver was changed: read it now
    agent.store.write(fn)               fn(connection) in the next commit; tables of your own
    agent.adopt(identity)               from the next connection on; agent.reconnect(why)
    agent.spawn(coroutine)              a task of this agent; if it fails, the agent starts anew

Everything runs in the loop. Handlers may be coroutines; those of messages run in order, one
after another.
"""

import asyncio
import contextvars
import hashlib
import logging
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from agent import core, drivers, i18n, identity, logs, posix, servers
from agent.audit import AuditLog
from agent.clock import Clock
from agent.connection import Connection
from agent.control import SOCKET, Args
from agent.drivers import Driver, DriverError
from agent.effects import Phase, Unreadable
from agent.errors import ControlError, StateError
from agent.hooks import Hooks
from agent.i18n import _
from agent.identity import Identity, Server
from agent.inbox import Inbox
from agent.network import carriers, settings
from agent.network.findings import Code
from agent.network.route import Carrier
from agent.network.site import Site
from agent.outbox import Outbox
from agent.room import Reserve, Room
from agent.sampling import Sampler
from agent.store import Store, get_meta, set_meta
from agent.vitals import Vitals
from agent.wire import messages
from agent.wire.catalogue import ClinicalState, Metric, Outcome
from agent.wire.messages import (
    Accepted,
    AuditEntry,
    Durable,
    Heartbeat,
    Hello,
    Live,
    Message,
    Up,
)
from agent.wire.pacer import Turn

M = TypeVar("M", bound=Message)
P = TypeVar("P")
Part = Callable[["Agent"], None]

AGENT_VERSION = "0.1.0"
TICK_S = 0.5
STOP_S = 0.5  # for each part to stop

log = logging.getLogger(__name__)


class Agent(Hooks):
    """The agent of one state directory. `run` it; everything else is for its parts."""

    store: Store
    outbox: Outbox
    audit: AuditLog
    identity: Identity
    _servers: servers.Keeper

    def __init__(
        self,
        state: Path,
        *,
        parts: Sequence[Part] = (),
        clock: Clock | None = None,
        driver: Driver | None = None,
        timing: core.Timing | None = None,
    ) -> None:
        super().__init__()
        self.state_dir = state
        self.clock = clock or Clock()
        self.driver = driver or _driver(state)
        self._parts = parts
        self._timing = timing
        self._connection: Connection | None = None
        self._vitals: Vitals | None = None
        self._room: Room | None = None
        self._sampler = Sampler(self.driver, self.clock, self.emit, self._own_metrics)
        self._inbox = Inbox(self)
        self._hurry = asyncio.Event()  # enrolment need not wait for its next attempt
        self._site = Site(state, self.control, self._network_changed)
        self._carriers = carriers.Carriers()
        self._group = asyncio.TaskGroup()
        self._clinical = self.driver.state
        self._was_online = False
        self._fresh = False  # enrolled by this start
        self._trouble = ""
        self.remote_enabled = True  # the panel's switch; what reads the policy sets it

    # --- for the parts: action -------------------------------------------------------------------

    @property
    def device(self) -> str:
        """The device id. Only once enrolled, as it is whenever a part is called."""
        return self.identity.device

    @property
    def clinical_state(self) -> ClinicalState:
        return self.driver.state

    @property
    def online(self) -> bool:
        return self._connection is not None and self._connection.online

    @property
    def waiting(self) -> int:
        """Durable messages that the portal has not decided on."""
        return self.outbox.depth if self._vitals is not None else 0

    @property
    def disk_low(self) -> bool:
        """The disk is so full that remote access is refused."""
        return self._room is not None and self._room.low

    def still(self) -> list[str]:
        """What of this agent does not move: for the watchdog."""
        return self._vitals.still() if self._vitals is not None else []

    def emit(self, kind: type[Durable], **fields: Any) -> asyncio.Future[Any]:
        """Queue a durable message; `at`, `boot`, `uptime_ms`, `outbox` and `seq` are filled in.

        The future gives the message once it is on disk and may be left alone. It raises StoreError
        (OutboxFull) or, for fields outside the schema, MessageError.
        """
        return self.outbox.add(kind, fields)

    def record(
        self,
        action: str,
        *,
        actor: str,
        outcome: Outcome,
        session: str | None = None,
        execution: str | None = None,
        reason: str | None = None,
        digest: str | None = None,
    ) -> asyncio.Future[AuditEntry]:
        """Append to the audit chain. The future gives the entry once it is on disk.

        It raises AuditUnwritable: then what was to be recorded must not happen (R-ACC-10).
        """
        return self.audit.record(
            action,
            actor=actor,
            outcome=outcome,
            session=session,
            execution=execution,
            reason=reason,
            digest=digest,
        )

    def accept(
        self,
        of: Literal["access-request", "answer", "end", "job", "cancel", "roster", "entitlement"],
        ref: str,
        payload: bytes,
    ) -> asyncio.Future[Any]:
        """Tell the portal that this device holds the message that came as `payload`."""
        return self.emit(Accepted, of=of, ref=ref, digest=hashlib.sha256(payload).hexdigest())

    def send_now(self, kind: type[Up], **fields: Any) -> bool:
        """Send at QoS 0; False without a connection. Raises MessageError."""
        if self._connection is None or not self._connection.online:
            return False
        self._connection.publish(kind(**self._stamp(), **fields))
        return True

    def frames_ready(self) -> None:
        if self._connection is not None:
            self._connection.frames_ready()

    def adopt(self, new: Identity) -> None:
        """Go on with another certificate and key of this same device: from the next connection."""
        self.identity = new
        self.clock.raise_floor(new.signed_ms)
        if self._connection is not None:
            self._connection.adopt(new)
            self._servers.lost = new.servers_lost
            if new.servers != self._servers.list.adopted and self._servers.list.offer(new.servers):
                self._renumber()

    @property
    def doubted(self) -> bool:
        """Something is amiss that the portal, asked over HTTPS, can settle."""
        connection = self._connection
        return connection is not None and (
            connection.doubted or (self._servers.lost and not connection.online)
        )

    def judged(self, verdict: Code | None) -> None:
        """What the portal has against our certificate; None: nothing."""
        if self._connection is not None:
            self._connection.judged(verdict)

    def reconnect(self, reason: str) -> None:
        """Make the connection anew, if there is one; nothing durable is lost by it."""
        if self._connection is not None:
            self._connection.reconnect(reason)

    def connect(self) -> None:
        """Have a connection from now on. Only for agent.remote, which decides on it."""
        if self._connection is not None:
            self._connection.start()

    async def disconnect(self) -> None:
        """Say goodbye and have no connection until `connect`."""
        if self._connection is not None:
            await self._connection.pause()

    def spawn(
        self, work: Coroutine[Any, Any, None], *, name: str | None = None
    ) -> asyncio.Task[None]:
        return self._group.create_task(work, name=name)

    def look(self) -> None:
        """Read the driver now rather than at the next tick: something was done to it."""
        for event in self.driver.advance(self.clock.now()):
            self._sampler.event(event)
        if self.driver.state is self._clinical:
            return
        self._clinical = self.driver.state
        for watcher in self._state_watchers:
            watcher(self._clinical)
        if self._connection is not None:
            self._connection.state_changed()

    # --- life ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until cancelled. Raises AgentError, or a group of what its tasks raised."""
        logs.agent.set(self.state_dir.name)
        i18n.use(i18n.chosen(self.state_dir))
        posix.check_private_dir(self.state_dir)
        with posix.only_process(self.state_dir / "agent.lock"):
            for path in posix.keep_private(self.state_dir):
                log.warning("other users could read %s; now they cannot", path)
            self.store = Store(self.state_dir / "agent.db")
            told = False
            try:
                async with self._group:
                    self._site.open()
                    self.control.register("status", self._status)
                    self.control.register("simulate", self._simulate)
                    self.spawn(self.control.serve(self.state_dir / SOCKET), name="control")
                    await self._open()
                    self.spawn(self._inbox.work(), name="inbox")
                    self.spawn(self._ticking(), name="ticks")
            except asyncio.CancelledError:
                told = True
                raise
            finally:
                await self._close(told=told)

    async def _open(self) -> None:
        """Everything that comes before the first connection."""
        floor = await self.store.write(lambda db: int(get_meta(db, "clock_floor") or 0))
        self.clock.keep_floor(floor, self._keep_floor)
        kept = await self.store.write(lambda db: str(get_meta(db, "carrier") or ""))
        self._carriers.recall(kept, self.clock.wall_ms())
        self.outbox = Outbox(self.store, self.clock)
        await self.outbox.open()
        vitals = self._vitals = Vitals(self.store, self.clock, lambda: self._connection)
        await vitals.begin()
        self.spawn(vitals.work(), name="vitals")
        self.identity = await self._identify()
        self.clock.raise_floor(self.identity.signed_ms)
        self.audit = AuditLog(
            self.store,
            self.outbox,
            self.clock,
            device=self.identity.device,
            key=self.identity.audit_key,
        )
        await self.audit.open()
        if self._fresh:
            self.record("agent:enrol", actor="agent", outcome=Outcome.ALLOWED)
        self._tell_lost()
        vitals.announce(self.record, self.emit)
        reserve = Reserve(self.state_dir / "reserve")
        self._room = Room(reserve, self.store, self.outbox, self.driver, self.record, self.emit)
        self.spawn(self._room.work(), name="room")
        for install in self._parts:
            install(self)
        self._servers = servers.Keeper(self, self._here, self._renumber)
        self._connection = Connection(
            identity=self.identity,
            clock=self.clock,
            outbox=self.outbox,
            owner=self,
            servers=self._servers.list,
            timing=self._timing,
            settings=self._site.settings,
            carriers=self._carriers,
        )
        if self.remote_enabled:
            self.connect()

    def _tell_lost(self) -> None:
        """Files that the agent does without; the portal learns which, and nothing of them."""
        if self.identity.servers_lost:
            log.error("%s", identity.servers_lost(self.identity.provision))
            self.record("servers:lost", actor="agent", outcome=Outcome.FAILED)
        if self._site.lost:
            self.record("network:lost", actor="agent", outcome=Outcome.FAILED)

    async def _identify(self) -> Identity:
        """The identity; before enrolment, once it is there (R-CON-2). Raises StateError."""
        known = identity.load(self.state_dir)
        if known is not None:
            return known
        from agent import enrolment  # HTTP is needed once in an injector's life

        self._fresh = True
        return await enrolment.until_enrolled(self.state_dir, self._set_trouble, self._hurry)

    def _set_trouble(self, trouble: str) -> None:
        self._trouble = trouble

    def _keep_floor(self, floor_ms: int) -> None:
        self.store.write(lambda db: set_meta(db, "clock_floor", floor_ms))

    async def _ticking(self) -> None:
        while True:
            now = self.clock.now()
            if self._vitals is not None:
                self._vitals.ticked(now)
            self.look()
            self._sampler.tick(now)
            for watcher in self._ticks:
                watcher(now)
            await asyncio.sleep(TICK_S)

    async def _close(self, *, told: bool) -> None:
        """Leave nothing undone that can be done in two seconds. `told`: to end, it did not fail."""
        for stop in reversed(self._stoppers):
            try:
                async with asyncio.timeout(STOP_S):
                    await stop()
            except Exception:  # the others, and the store, must still close
                log.exception("a part did not stop cleanly")
        if self._connection is not None:
            self._sampler.flush()
            await self._connection.close()
            self.outbox.flush()
        if told and self._vitals is not None:
            self._vitals.end()
        await self.store.close()

    # --- local commands --------------------------------------------------------------------------

    def _status(self, args: Args) -> dict[str, Any]:
        """In the language of who asks, where that is said."""
        speaking = contextvars.copy_context()
        if args.get("language"):
            speaking.run(i18n.use, str(args["language"]))
        return speaking.run(self.status)

    def status(self) -> dict[str, Any]:
        """What `patency-agent status` shows. Times are ISO 8601, UTC."""
        connection = self._connection
        shown: dict[str, Any] = {
            "connection": connection.phase.value if connection else "not enrolled",
            "online": self.online,
            "trouble": self._why_not(),
            "product_line": self.driver.product_line.value,
            "software_version": self.driver.software_version,
            "agent_version": AGENT_VERSION,
            "state": self.driver.state.value,
        }
        lost = [settings.lost()] if self._site.lost else []
        if connection is not None and self._servers.lost:
            lost.append(identity.servers_lost(self.identity.provision))
        if lost:
            shown["files_trouble"] = " ".join(lost)
        if connection is None:
            return shown
        shown |= {
            "device": self.device,
            "serial": self.identity.provision.serial,
            "access_server": connection.server,
            "carrier": connection.carrier.value,
            "keepalive_s": connection.keepalive_s,
            "cut_after_s": connection.cut_after_s,
            "finding": connection.finding.code.value if connection.finding else None,
            "rtt_ms": connection.rtt_ms
            if connection.rtt_ms is None
            else round(connection.rtt_ms, 1),
            "outbox_depth": self.outbox.depth,
            "outbox_shed": dict(self.outbox.shed),
            "audit_index": self.audit.head.index if self.audit.head else None,
            "disk_ok": self.store.healthy and not self.disk_low,
            "certificate_expires_at": self.identity.expires_at.isoformat(),
            "certificate_days_left": round(self._days_left(), 1),
        }
        for source in self._statuses:
            shown |= source()
        return shown

    def _why_not(self) -> str:
        """Why there is no connection; empty when there is one."""
        if self._connection is None:
            return self._trouble
        if not self.remote_enabled:
            return _("Remote connection is switched off at this injector.")
        return "" if self._connection.online else self._connection.reason

    def _simulate(self, args: Args) -> dict[str, Any]:
        try:
            self.driver.simulate(str(args.get("fault")))
        except DriverError as error:
            raise ControlError("driver", str(error)) from error
        self.look()
        return {"state": self.driver.state.value}

    # --- for the connection ----------------------------------------------------------------------

    def hello(self) -> Hello:
        services = {name: service.level for name, service in self.driver.services().items()}
        return Hello(
            **self._stamp(),
            agent_version=AGENT_VERSION,
            software_version=self.driver.software_version,
            product_line=self.driver.product_line,
            state=self.driver.state,
            knows=messages.known_down(),
            outbox=self.outbox.id,
            high=self.outbox.high,
            roster_version=self.roster_version(),
            entitlement_version=self.entitlement_version(),
            services=services,
            head=self.audit.head,
        )

    def heartbeat(self, rtt_ms: float | None) -> Heartbeat:
        return Heartbeat(
            **self._stamp(),
            state=self.driver.state,
            outbox_depth=self.outbox.depth,
            rtt_ms=rtt_ms,
        )

    def live(self) -> Live:
        self.look()
        return Live(**self._stamp(), state=self.driver.state, values=self._sampler.values())

    def deliver(self, message: Message, payload: bytes) -> None:
        self._inbox.put(message, payload)

    def unreadable(self, what: Unreadable) -> None:
        self._inbox.ignored(what.reason, what.digest)

    def frame(self, frame: bytes) -> None:
        self._frame_sink(frame)

    def next_frame(self, turn: Turn, most: int) -> bytes | None:
        return self._frame_source(turn, most)

    def changed(self, phase: Phase, reason: str) -> None:
        log.info("connection: %s %s", phase, reason)
        if phase is Phase.ONLINE and self._connection is not None:
            self._servers.worked(self._connection.tried)
        if self.online is not self._was_online:
            self._was_online = self.online
            for watcher in self._online_watchers:
                watcher(self._was_online)

    def _here(self) -> Server | None:
        """The access server at which the portal answers."""
        connection = self._connection
        if connection is None or connection.phase is not Phase.ONLINE:
            return None
        return connection.tried

    def _renumber(self) -> None:
        if self._connection is not None:
            self._connection.renumber()

    def renamed(self) -> None:
        self.record(
            "outbox:rename", actor="agent", outcome=Outcome.ALLOWED, reason="older_than_portal"
        )

    def carrier_worked(self, carrier: Carrier) -> None:
        kept = carriers.keep(carrier, self.clock.wall_ms())
        self.store.write(lambda db: set_meta(db, "carrier", kept))

    # --- inside ----------------------------------------------------------------------------------

    def _network_changed(self) -> None:
        """The site set its proxy or cap. What was set stays here (R-PRV-2)."""
        self._hurry.set()
        if self._connection is not None:
            self.record("network:change", actor="panel", outcome=Outcome.ALLOWED)
            self._connection.use(self._site.settings)

    def _stamp(self) -> dict[str, Any]:
        return {
            "at": self.clock.wall_ms(),
            "boot": self.clock.boot,
            "uptime_ms": self.clock.uptime_ms(),
        }

    def _days_left(self) -> float:
        return identity.days_left(self.identity, self.clock.wall_ms())

    def _own_metrics(self) -> dict[Metric, float]:
        own = {Metric("cert_days_left"): self._days_left()}
        if self._connection is not None and self._connection.rtt_ms is not None:
            own[Metric("rtt_ms")] = self._connection.rtt_ms
        if self._inbox.clock_skew_ms is not None:
            own[Metric("clock_skew_ms")] = self._inbox.clock_skew_ms
        return own


def _driver(state: Path) -> Driver:
    try:
        return drivers.load(state)
    except DriverError as error:
        raise StateError(_("The driver cannot start: {error}").format(error=error)) from error
