"""Reads about sessions, scoped to who asks; the two audit chains side by side; the report."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.models import AnonymousUser
from django.db.models import Q, QuerySet

from agent.wire import chain
from agent.wire.catalogue import SessionState
from fleet.access import outbound
from fleet.access.models import OPEN_STATES, Roster, Session
from fleet.accounts.models import Role, User
from fleet.accounts.permissions import Action, restrict
from fleet.audit import services as audit
from fleet.audit.models import DeviceEntry, DeviceHead, Entry
from fleet.core import clock

MAX_VERIFIED = (
    20_000  # entries between the first and the last of a session; more is cut and said so
)
_OVER_ACTIONS = frozenset({"session:refuse", "session:expire", "session:end"})


def sessions_for(user: User | AnonymousUser) -> QuerySet[Session]:
    """The sessions that the user may see, newest first, with what a list shows of them."""
    rows = Session.objects.select_related(
        "device", "device__product_line", "device__site", "specialist", "organisation", "ended_by",
        "specialist__organisation",
    )  # fmt: skip
    return restrict(rows, user, Action.ACCESS_VIEW)


def open_sessions_for(user: User | AnonymousUser) -> QuerySet[Session]:
    return sessions_for(user).filter(state__in=OPEN_STATES)


def tickets_owed(user: User | AnonymousUser) -> QuerySet[Session]:
    """Sessions whose ticket is to follow, of those that the user is to give one: a specialist's
    own, for an administrator everybody's, for others none."""
    rows = restrict(sessions_for(user), user, Action.ACCESS_REQUEST)
    rows = rows.filter(Q(state__in=OPEN_STATES) | Q(active_at__isnull=False), ticket="")
    if isinstance(user, User) and user.role == Role.ADMINISTRATOR:
        return rows
    return rows.filter(specialist=user.pk)


def newest_roster() -> Roster | None:
    return Roster.objects.order_by("-version").first()


# --- both audit chains --------------------------------------------------------------------------


@dataclass(frozen=True)
class TimelineEntry:
    """One audit entry of either side. `at` is that side's own clock."""

    side: str  # "server" or "device"
    index: int
    at: datetime
    action: str
    actor: str
    outcome: str
    reason: str | None
    digest: str | None
    hash: str


@dataclass(frozen=True)
class Timeline:
    """The entries of both sides by time, and whether they hold and agree (R-ACC-10)."""

    entries: list[TimelineEntry]
    server_bad: int | None  # index of the first bad entry of the server's chain in this stretch
    device_bad: int | None
    complete: bool  # False: the stretch was too long, and only its start was verified
    differences: list[str] = field(default_factory=list)  # codes; see `_differences`

    @property
    def agree(self) -> bool:
        return self.server_bad is None and self.device_bad is None and not self.differences


def timeline(session: Session) -> Timeline:
    """What each side recorded of the session. Both chains are verified from the session's first
    entry to its last."""
    server = list(Entry.objects.filter(session=session.pk).order_by("index"))
    device = list(
        DeviceEntry.objects.filter(session=session.pk, device=session.device_id).order_by("index")
    )
    entries = [_entry("server", row) for row in server] + [_entry("device", row) for row in device]
    entries.sort(key=lambda e: (e.at, e.side, e.index))
    server_bad, server_whole = _verify(
        server, Entry.objects.filter(organisation=session.organisation_id)
    )
    device_bad, device_whole = _verify(device, DeviceEntry.objects.filter(device=session.device_id))
    return Timeline(
        entries=entries,
        server_bad=server_bad,
        device_bad=device_bad,
        complete=server_whole and device_whole,
        differences=_differences(session, server, device),
    )


def _entry(side: str, row: Entry | DeviceEntry) -> TimelineEntry:
    entry = row.entry
    return TimelineEntry(
        side=side,
        index=row.index,
        at=clock.from_ms(entry["at"]),
        action=entry["action"],
        actor=entry["actor"],
        outcome=entry["outcome"],
        reason=entry.get("reason"),
        digest=entry.get("digest"),
        hash=row.hash,
    )


def _verify(rows: list[Any], whole_chain: QuerySet[Any]) -> tuple[int | None, bool]:
    """(first bad index or None, whether everything was looked at) from first to last of `rows`."""
    if not rows:
        return None, True
    first, last = rows[0], rows[-1]
    stretch = whole_chain.filter(index__range=(first.index, last.index)).order_by("index")
    entries: Iterable[Any] = stretch.values_list("entry", flat=True)[:MAX_VERIFIED].iterator()
    count, bad = chain.verify(entries, start=first.index, previous=first.entry["previous"])
    expected = last.index - first.index + 1
    if bad is None and count < min(expected, MAX_VERIFIED):
        bad = first.index + count  # cut short: an entry is missing
    return bad, expected <= MAX_VERIFIED


def _differences(session: Session, server: list[Entry], device: list[DeviceEntry]) -> list[str]:
    """Where the two tell different stories.

    `request`, `answer`: the device acted on a digest that the server never sent.
    `device_silent`: the device took part, and has recorded nothing that reached us (yet).
    `device_open`: over here, not over there (yet). `server_open`: the reverse.
    `start`: one side says that the session became active, the other does not.
    """
    found: list[str] = []
    known = {session.request_digest}
    if session.answered_at is not None:
        known.add(outbound.digest(outbound.answer_message(session)))
    strays = [row for row in device if row.entry.get("digest") not in known | {None}]
    if any(row.action != "session:answer" for row in strays):
        found.append("request")
    if any(row.action == "session:answer" for row in strays):
        found.append("answer")
    if not device:
        if session.accepted_at is not None:
            found.append("device_silent")
        return found
    over_there = any(row.action in _OVER_ACTIONS for row in device)
    if session.over and not over_there:
        found.append("device_open")
    if over_there and not session.over:
        found.append("server_open")
    if _started(server) != _started(device):
        found.append("start")
    return found


def _started(rows: Iterable[Entry | DeviceEntry]) -> bool:
    return any(row.action == "session:start" for row in rows)


@dataclass(frozen=True, slots=True)
class Head:
    """The newest entry of a chain that is known here: who holds a copy of it can prove the rest."""

    index: int
    hash: str
    signed: bool


def heads(session: Session) -> tuple[Head | None, Head | None]:
    """Of the hospital's chain here, and of the injector's own as the injector signed it."""
    here = audit.server_head(session.organisation_id)
    there = DeviceHead.objects.filter(device=session.device_id).order_by("-index").first()
    if here is None:  # there is no key to sign it with
        last = Entry.objects.filter(organisation=session.organisation_id).order_by("-index").first()
        server = Head(last.index, last.hash, signed=False) if last else None
    else:
        server = Head(here.index, here.hash, signed=True)
    return server, Head(there.index, there.hash, signed=True) if there else None


# --- the service report -------------------------------------------------------------------------


@dataclass(frozen=True)
class Report:
    """What a person reads and files after a session: who, what, when, by whose leave, its end."""

    session: Session
    timeline: Timeline
    asked_at: datetime
    waited: timedelta | None  # from the request to the start
    lasted: timedelta | None  # from the start to the end, or to now
    approved_by: str | None  # "approver-1": a local number, no name
    presence_proved: bool  # the device's signed receipt is on record

    @property
    def refused(self) -> bool:
        return self.session.state in (SessionState.REFUSED, SessionState.EXPIRED)


def report(session: Session, *, now: datetime | None = None) -> Report:
    until = session.ended_at or now or clock.now()
    return Report(
        session=session,
        timeline=timeline(session),
        asked_at=session.created_at,
        waited=session.active_at - session.created_at if session.active_at else None,
        lasted=until - session.active_at if session.active_at else None,
        approved_by=f"approver-{session.approver}" if session.approver else None,
        presence_proved=session.receipt is not None,
    )
