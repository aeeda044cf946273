"""The doctor's looking: without an agent, and beside one without disturbing it.

Every attempt travels as the agent's own would (`agent.network.journey`), through the site's proxy.
Blocking; every look has its deadline.
"""

import asyncio
import sqlite3
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryptography import x509

from agent import control, enrolment, identity, posix
from agent.clock import BUILD_DATE_MS
from agent.doctor import checks as looked
from agent.doctor import speak
from agent.doctor.checks import Check, Examination, Note, Said, Verdict, What
from agent.errors import AgentError, AlreadyRunning, StateError
from agent.identity import Identity, Provision, Server
from agent.network import date, findings, settings
from agent.network.findings import Code, Failure, Finding, Observation, classify
from agent.network.journey import AS_ANYBODY, Astray, Journey, Ready, Resolver
from agent.network.route import Carrier, Route, Stage
from agent.servers import ServerList, load_offered

ATTEMPT_S = 8.0  # name, TCP, proxy and TLS together
SPEAK_S = 5.0
LISTEN_S = 0.7  # more than a round trip
STATUS_S = 5.0
_OF_STAGE = {
    Stage.NAME: What.NAME,
    Stage.TCP: What.PORT,
    Stage.PROXY: What.PROXY,
    Stage.TLS: What.TLS,
    Stage.UPGRADE: What.WEBSOCKET,
    Stage.MQTT: What.MQTT,
}


def examine(
    state: Path,
    *,
    wall: Callable[[], float] = time.time,
    resolve: Resolver | None = None,
) -> Examination:
    """Look at everything. Raises StateError when the state directory cannot be worked on."""
    return _Doctor(state, wall, resolve).examine()


class _Doctor:
    def __init__(self, state: Path, wall: Callable[[], float], resolve: Resolver | None) -> None:
        posix.check_private_dir(state)
        self._state = state
        self._wall = wall
        self._seams: dict[str, Any] = {"wall": wall} | ({"resolve": resolve} if resolve else {})
        self._provision: Provision = identity.load_provision(state)
        self._unusable = ""  # what keeps the agent from working with its files
        self._identity = self._load()
        self._settings, self._unset = settings.read(state)
        self._judged: list[Code | None] = []  # the portal is asked once
        self._true: float | None = None  # what the server says the time is

    def _load(self) -> Identity | None:
        try:
            return identity.load(self._state)
        except StateError as error:
            self._unusable = str(error)
            return None

    def examine(self) -> Examination:
        at = self._wall()
        enrol = self._provision.enrol
        self._true = date.served(self._provision, self._settings.proxy, **self._seams)
        running = self._agent()
        checks = [*running, *self._files(), self._clock(at), *self._credential(at)]
        known = self._identity
        if known is None:
            checks += self._reach(enrol)
            servers: tuple[Server, ...] = (enrol,)
        else:
            # With those that the portal has named and nobody has reached yet: a firewall that was
            # not told in time shows here first.
            dialled = ServerList(known.servers, load_offered(self._state)).dial
            for server in dialled:
                checks += self._access(server, known)
            servers = dialled if enrol in dialled else (*dialled, enrol)
            if enrol not in dialled:
                checks += [_mild(check) for check in self._reach(enrol)]
        proxy = self._settings.proxy
        return Examination(
            at=at,
            serial=self._provision.serial,
            device=known.device if known else "",
            proxy=str(proxy or ""),
            proxy_user=(proxy.user or "") if proxy else "",
            servers=tuple(str(server) for server in servers),
            authority=_authority(self._provision),
            checks=looked.weigh(checks),
        )

    # --- the injector itself ---------------------------------------------------------------------

    def _agent(self) -> list[Check]:
        try:
            status = control.call(self._state, "status", timeout_s=STATUS_S)
        except AgentError:
            return [Check(What.AGENT, Verdict.ADVICE, Note(Said.AGENT_OFF))]
        if not status.get("online"):
            return [Check(What.AGENT, Verdict.ADVICE, Note(Said.AGENT_AWAY))]
        server = str(status.get("access_server"))
        note = Note(Said.AGENT_ONLINE, {"server": server, "carrier": str(status.get("carrier"))})
        found = [Check(What.AGENT, Verdict.GOOD, note)]
        silence = status.get("cut_after_s")
        if silence is not None:
            cut = {"seconds": f"{float(silence):.0f}", "server": server}
            found.append(Check(What.AGENT, Verdict.ADVICE, Finding(Code.IDLE_CUT, cut)))
        return found

    def _files(self) -> list[Check]:
        """Small files that the agent does without, and says so."""
        lost = [settings.lost()] if self._unset else []
        if self._identity is not None and self._identity.servers_lost:
            lost.append(identity.servers_lost(self._provision))
        return [
            Check(What.FILES, Verdict.ADVICE, Note(Said.FILE_LOST, {"trouble": each}))
            for each in lost
        ]

    def _clock(self, at: float) -> Check:
        finding = findings.clock(at, self._true, self._floor())
        if finding is not None:
            return Check(What.CLOCK, Verdict.BAD, finding)
        if self._true is None:
            note = Note(Said.CLOCK_UNKNOWN, {"now": findings.day(at)})
            return Check(What.CLOCK, Verdict.ADVICE, note)
        return Check(What.CLOCK, Verdict.GOOD, Note(Said.CLOCK_GOOD))

    def _floor(self) -> float:
        """The newest date that this injector has seen signed; seconds."""
        floor = BUILD_DATE_MS / 1000
        path = self._state / "agent.db"
        if self._identity is not None:
            floor = max(floor, self._identity.signed_ms / 1000)
        try:
            with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as store:
                row = store.execute("SELECT value FROM meta WHERE key = 'clock_floor'").fetchone()
        except sqlite3.Error:
            return floor
        return max(floor, int(row[0]) / 1000) if row else floor

    def _credential(self, at: float) -> list[Check]:
        known = self._identity
        if self._unusable:
            note = Note(Said.FILE_UNUSABLE, {"trouble": self._unusable})
            return [Check(What.CREDENTIAL, Verdict.BAD, note)]
        if known is None:
            note = Note(Said.NOT_ENROLLED)
            return [Check(What.CREDENTIAL, Verdict.ADVICE, note)]
        if self._over(known, at):
            return [Check(What.CREDENTIAL, Verdict.BAD, Finding(Code.OWN_EXPIRED))]
        note = Note(Said.VALID, {"ends": findings.day(known.expires_at.timestamp())})
        return [Check(What.CREDENTIAL, Verdict.GOOD, note)]

    def _over(self, known: Identity, at: float) -> bool:
        return (at if self._true is None else self._true) >= known.expires_at.timestamp()

    # --- a server --------------------------------------------------------------------------------

    def _reach(self, server: Server) -> list[Check]:
        """As far as TLS, without a certificate of ours: as enrolment goes."""
        context = identity.pinned_context(self._provision.anchors)
        journey = self._journey(Route(server, proxy=self._settings.proxy), context, AS_ANYBODY)
        try:
            journey.travel().close()
        except Astray as error:
            return [*_passed(journey, server), self._astray(error.observation)]
        return list(_passed(journey, server))

    def _access(self, server: Server, known: Identity) -> list[Check]:
        """The whole way, by MQTT; where the carrier may be to blame, by a websocket as well."""
        checks, finding = self._attempt(server, known, Carrier.MQTT)
        if finding is None or not findings.blames_carrier(finding):
            return checks
        others, other = self._attempt(server, known, Carrier.WEBSOCKET)
        meant = findings.together(finding, other)
        if meant.code is Code.CARRIERS_CUT:
            meant = Finding(self._judge(known) or meant.code, meant.facts)
        verdict = Verdict.BAD if other else Verdict.ADVICE
        return [
            *checks[:-1],
            replace(checks[-1], shown=meant, verdict=verdict),
            *(check for check in others if check.what in (What.WEBSOCKET, What.MQTT) and not other),
        ]

    def _judge(self, known: Identity) -> Code | None:
        """Whether it is our certificate that servers hang up on, as the agent finds it out."""
        if self._over(known, self._wall()):
            return Code.OWN_EXPIRED
        if not self._judged:
            self._judged.append(asyncio.run(enrolment.judge(known)))
        return self._judged[0]

    def _attempt(
        self, server: Server, known: Identity, carrier: Carrier
    ) -> tuple[list[Check], Finding | None]:
        route = Route(server, carrier, self._settings.proxy)
        journey = self._journey(route, known.tls_context(), None)
        began = time.monotonic()
        try:
            ready = journey.travel()
        except Astray as error:
            check = self._astray(error.observation)
            return [*_passed(journey, server), check], _finding(check)
        try:
            ended, said = self._speak(ready, known.device)
        finally:
            ready.close()
        if ended is not None:
            failure, alert, detail = ended
            seen = Observation(
                Stage.MQTT,
                failure,
                server=str(server),
                proxy=str(route.proxy or ""),
                carrier=carrier,
                alert=alert,
                detail=detail,
            )
            check = self._astray(seen)
            return [*_passed(journey, server), check], _finding(check)
        took = time.monotonic() - began
        good = Check(What.MQTT, Verdict.GOOD, Note(said), str(server), took)
        return [*_passed(journey, server), good], None

    def _speak(self, ready: Ready, device: str) -> tuple[tuple[Failure, str, str] | None, Said]:
        """CONNECT where no agent runs on this state directory, else only listen."""
        try:
            with posix.only_process(self._state / "agent.lock"):
                # What the server has against our certificate comes first, and once something was
                # said to a closed door it would be lost.
                ready.settimeout(LISTEN_S)
                refused = speak.listen(ready)
                ready.settimeout(SPEAK_S)
                return refused or speak.greet(ready, device), Said.ACCEPTED
        except AlreadyRunning:
            ready.settimeout(LISTEN_S)
            return speak.listen(ready), Said.BORNE

    def _journey(self, route: Route, context: ssl.SSLContext, alpn: list[str] | None) -> Journey:
        return Journey(route, context, ATTEMPT_S, alpn=alpn, **self._seams)

    def _astray(self, seen: Observation) -> Check:
        if seen.failure is Failure.CERTIFICATE:
            seen = replace(seen, server_date=self._true)
        what = _OF_STAGE.get(seen.stage, What.MQTT)
        return Check(what, Verdict.BAD, classify(seen), seen.server)


def _passed(journey: Journey, server: Server) -> Iterator[Check]:
    for step in journey.steps:
        note = Note(Said.TOOK, {"ms": f"{step.took_s * 1000:.0f}"})
        yield Check(_OF_STAGE[step.stage], Verdict.GOOD, note, str(server), step.took_s)


def _finding(check: Check) -> Finding | None:
    return check.shown if isinstance(check.shown, Finding) else None


def _mild(check: Check) -> Check:
    """An enrolled injector needs its enrolment server only to come back after long."""
    return replace(check, verdict=Verdict.ADVICE) if check.verdict is Verdict.BAD else check


def _authority(provision: Provision) -> str:
    authorities = x509.load_pem_x509_certificates(provision.anchors.server_ca.encode())
    return ", ".join(each.subject.rfc4514_string() for each in authorities)
