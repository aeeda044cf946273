"""Writes of the audit: one chain per organisation, and the chain of heads over all.

`record` runs inside the caller's transaction: what is done and what is recorded of it are committed
together or not at all. BEGIN IMMEDIATE makes writers wait for one another, so that no two of them
see the same last entry; the unique indexes stand behind that.
"""

import logging
import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from django.db import connection, transaction

from agent.wire import chain
from agent.wire.catalogue import Outcome
from agent.wire.messages import SignedHead
from fleet.audit import keys
from fleet.audit.models import Entry, HeadLink
from fleet.core import clock

if TYPE_CHECKING:
    from fleet.accounts.models import Organisation
    from fleet.inventory.models import Device

ACTION = re.compile(r"[a-z]{2,16}:[a-z_]{2,32}")
_REASON = re.compile(r"[a-z_]{1,32}")
HEADS = "heads"  # the name of the chain over all

# Whoever is refused can go on asking, and must not fill the disk with it.
REFUSALS_WITHIN = timedelta(hours=1)
MAX_REFUSALS_OF_ONE = 30  # by one actor, in one chain
MAX_REFUSALS = 300  # in one chain
REFUSABLE = ("account:lock", "account:sign_in", "access:answer", "access:end", "session:request")

log = logging.getLogger(__name__)


class Person(Protocol):
    username: str


def record(
    *,
    organisation: "Organisation",
    actor: "Person | str",
    action: str,
    outcome: Outcome,
    device: "Device | None" = None,
    session: str | None = None,
    execution: str | None = None,
    reason: str | None = None,
    digest: str | None = None,
    now: datetime | None = None,
) -> Entry:
    """Append to the organisation's chain. `action` is `subject:verb`, `reason` a code, `digest` a
    SHA-256 in hex; no free text. Raises ValueError when they are not."""
    if ACTION.fullmatch(action) is None or (reason and _REASON.fullmatch(reason) is None):
        raise ValueError(f"not codes: {action!r}, {reason!r}")
    at = now or clock.now()
    said = {
        "chain": organisation.pk,
        "at": clock.to_ms(at),
        "action": action,
        "actor": actor if isinstance(actor, str) else actor.username,
        "outcome": str(outcome),
        "device": device.pk if device is not None else None,
        "session": session,
        "execution": execution,
        "reason": reason,
        "digest": digest,
    }
    # No savepoint of its own: what fails here fails what it is a record of.
    with transaction.atomic(savepoint=False):
        return _append(organisation, said, at)


def record_refusal(
    *,
    organisation: "Organisation",
    actor: "Person | str",
    action: str,
    reason: str,
    now: datetime,
    device: "Device | None" = None,
    session: str | None = None,
) -> Entry | None:
    """As `record`, for what the portal itself refuses; None when there were so many lately that
    this one is only counted in the log. `action` is one of REFUSABLE. Raises ValueError."""
    if action not in REFUSABLE:
        raise ValueError(f"not bounded: {action!r}")
    name = actor if isinstance(actor, str) else actor.username
    with transaction.atomic():
        lately = Entry.objects.filter(
            organisation=organisation,
            at__gt=now - REFUSALS_WITHIN,
            action__in=REFUSABLE,
            entry__outcome=Outcome.REFUSED.value,
        )
        full = (
            lately.filter(entry__actor=name)[:MAX_REFUSALS_OF_ONE].count() >= MAX_REFUSALS_OF_ONE
            or lately[:MAX_REFUSALS].count() >= MAX_REFUSALS
        )
        if full:
            log.warning("too many refusals to record: %s %s (%s)", name, action, reason)
            return None
        return record(
            organisation=organisation,
            actor=name,
            action=action,
            outcome=Outcome.REFUSED,
            device=device,
            session=session,
            reason=reason,
            now=now,
        )


def _append(organisation: "Organisation", said: dict[str, Any], at: datetime) -> Entry:
    index, previous = _next(_TAIL, organisation.pk)
    link = _link({"index": index, **said, "previous": previous})
    entry = Entry.objects.create(
        organisation=organisation,
        index=index,
        entry=link,
        hash=link["hash"],
        previous=previous,
        at=at,
        action=said["action"],
        session=said["session"] or "",
        execution=said["execution"] or "",
        device=said["device"] or "",
    )
    index, previous = _next(_HEADS_TAIL)
    head = _link(
        {
            "index": index,
            "chain": link["chain"],
            "chain_index": link["index"],
            "chain_hash": link["hash"],
            "at": link["at"],
            "previous": previous,
        }
    )
    HeadLink.objects.create(index=index, entry=head, hash=head["hash"])
    return entry


# By hand: building these two through the model costs more than all else that a record does, and
# every action waits for its record.
_TAIL = (
    'SELECT "index", hash FROM audit_entry WHERE organisation_id = %s ORDER BY "index" DESC LIMIT 1'
)
_HEADS_TAIL = 'SELECT "index", hash FROM audit_headlink ORDER BY "index" DESC LIMIT 1'


def _next(tail: str, *arguments: str) -> tuple[int, str]:
    """Index of the next entry, and hash of the last."""
    with connection.cursor() as cursor:
        cursor.execute(tail, arguments)
        last = cursor.fetchone()
    return (last[0] + 1, last[1]) if last else (0, chain.GENESIS)


def _link(fields: dict[str, Any]) -> dict[str, Any]:
    return {**fields, "hash": chain.entry_hash(fields)}


def server_head(organisation_id: str, *, now: datetime | None = None) -> SignedHead | None:
    """The newest entry of the organisation's chain, signed by the server's audit key.

    None when the chain is empty or the server has no key yet.
    """
    key = keys.server_key()
    last = (
        Entry.objects.filter(organisation=organisation_id)
        .order_by("-index")
        .values_list("index", "hash")
        .first()
    )
    if key is None or last is None:
        return None
    at = clock.to_ms(now or clock.now())
    return chain.sign_head(key, chain=organisation_id, index=last[0], hash=last[1], at=at)
