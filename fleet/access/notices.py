"""Telling a hospital of access to its injectors, before and after (R-ACC-10): what is to be sent.

The portal's pages always show it. E-mail and webhook are each organisation's own choice. A tick
looks which sessions have got further than their hospital was told, and puts a notice for each
channel into the outbox; `fleet.access.delivery` sends them. A crash loses none, and sends none
twice but those whose sending it interrupted.
"""

import secrets
from datetime import datetime, timedelta
from enum import StrEnum
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import transaction
from django.utils.translation import gettext as _

from agent.wire.catalogue import Outcome, SessionState
from fleet.access.models import Notice, NoticeSettings, Session
from fleet.accounts import sealing
from fleet.accounts.models import User
from fleet.accounts.permissions import Action, require
from fleet.audit import services as audit
from fleet.core.errors import Invalid

KEPT = timedelta(days=30)  # after it was sent or given up
AT_ONCE = 200  # sessions a tick looks at


class Stage(StrEnum):
    ASKED = "asked"
    APPROVAL = "approval"  # a person at the injector is asked
    ENDED = "ended"


_ORDER = ["", *Stage]


def stage_of(session: Session) -> Stage:
    """What is to be told of a session as it stands."""
    state = SessionState(session.state)
    if state.over:
        return Stage.ENDED
    return Stage.APPROVAL if state is SessionState.PRESENCE else Stage.ASKED


def tick(now: datetime) -> None:
    """Put into the outbox what hospitals are to be told, and forget what is long done."""
    rows = Session.objects.exclude(told=Stage.ENDED.value).select_related("organisation")
    for session in rows.order_by("created_at")[:AT_ONCE]:
        stage = stage_of(session)
        if _ORDER.index(stage) > _ORDER.index(session.told):
            _tell(session, stage, now)
    for done in ("sent_at", "given_up_at"):
        Notice.objects.filter(**{f"{done}__lt": now - KEPT}).delete()


def _tell(session: Session, stage: Stage, now: datetime) -> None:
    with transaction.atomic():
        rows = Session.objects.filter(pk=session.pk, told=session.told)
        if rows.update(told=stage.value) != 1:
            return
        chosen = NoticeSettings.objects.filter(organisation=session.organisation_id).first()
        if chosen is None:
            return
        people: list[User | None] = []
        if chosen.email and settings.PATENCY_SMTP:
            people += addressees(session.organisation_id)
        if chosen.webhook_url and chosen.disabled_at is None:
            people.append(None)
        for person in people:
            Notice.objects.create(
                organisation_id=session.organisation_id,
                session=session,
                stage=stage.value,
                person=person,
                created_at=now,
                due_at=now,
            )


def addressees(organisation: str) -> list[User]:
    """The organisation's people who gave an address."""
    rows = User.objects.filter(organisation=organisation, is_active=True).exclude(email="")
    return list(rows[:100])


def set_up(
    *, actor: User, email: bool, webhook_url: str, now: datetime
) -> tuple[NoticeSettings, str]:
    """Choose how the actor's organisation is told. A new address for the webhook gets a new secret,
    which is returned this once, and one that was switched off is on again.

    Raises NotAllowed, Invalid.
    """
    require(actor, Action.NOTICE_SET)
    url = _checked(webhook_url.strip())
    with transaction.atomic():
        chosen, _made = NoticeSettings.objects.get_or_create(organisation=actor.organisation)
        secret = ""
        if url and url != chosen.webhook_url:
            secret = secrets.token_urlsafe(32)
            chosen.webhook_secret = sealing.seal(secret)
        chosen.email, chosen.webhook_url = email, url
        chosen.failures, chosen.trouble, chosen.disabled_at = 0, "", None
        chosen.save()
        audit.record(
            organisation=actor.organisation,
            actor=actor,
            action="notice:set",
            outcome=Outcome.ALLOWED,
            now=now,
        )
    return chosen, secret


def set_address(*, actor: User, address: str) -> None:
    """Where the actor's own notices go; empty for nowhere. Raises NotAllowed, Invalid."""
    require(actor, Action.NOTICE_SET)
    if address:
        try:
            validate_email(address)
        except ValidationError:
            raise Invalid(
                _("This is no e-mail address. Write one such as name@example.org.")
            ) from None
    User.objects.filter(pk=actor.pk).update(email=address)


def _checked(url: str) -> str:
    if not url:
        return ""
    try:
        parts = urlsplit(url)
        _port = parts.port
    except ValueError:
        parts = urlsplit("")
    plain = parts.username is None and parts.password is None and not parts.fragment
    printable = url.isascii() and url.isprintable() and " " not in url and len(url) <= 500
    if parts.scheme != "https" or not parts.hostname or not plain or not printable:
        raise Invalid(
            _("A webhook’s address begins with https:// and has no user name or password in it.")
        )
    return url
