"""OpenID providers of organisations: which there are, and whom one of them may sign in.

A provider speaks for its own organisation alone. Somebody it names is let in when

1. this provider and this subject were linked to a person before, or else
2. the provider says that it has verified the e-mail address, its domain is one of the provider's,
   and exactly one open account of the organisation was given that address by an administrator (the
   invitation), which nobody of this provider is linked to yet. Then they are linked, for good.

Nothing else about the person is believed or kept.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from allauth.socialaccount.models import SocialAccount
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import transaction
from django.utils.translation import gettext as _

from agent.wire.catalogue import Outcome
from fleet.accounts import sealing
from fleet.accounts.models import IdentityProvider, Organisation, User
from fleet.audit import services as audit
from fleet.core.errors import Conflict, Invalid, NotFound
from fleet.core.ids import new_short_id

MAX_SUBJECT = 191  # characters
_LOCAL = ("127.0.0.1", "::1", "localhost")


class Refused(Exception):
    """The provider answered, and that lets nobody in. `reason` is for the audit."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True, slots=True)
class Claims:
    """What of the provider's answer is looked at. `fresh`: it asked for the person just now."""

    subject: str
    email: str
    email_verified: bool
    second_factor: bool
    fresh: bool


# --- reads ----------------------------------------------------------------------------------------


def enabled(provider_id: str) -> IdentityProvider | None:
    rows = IdentityProvider.objects.select_related("organisation")
    return rows.filter(pk=provider_id, enabled=True).first()


def for_email(email: str) -> IdentityProvider | None:
    """The provider that signs people with this address in."""
    domain = email.rpartition("@")[2].lower()
    if not domain:
        return None
    return next(
        (row for row in IdentityProvider.objects.filter(enabled=True) if domain in domains(row)),
        None,
    )


def of(user: User) -> IdentityProvider | None:
    """The provider that this person is linked to, if it is one of their organisation."""
    ids = SocialAccount.objects.filter(user=user).values_list("provider", flat=True)
    rows = IdentityProvider.objects.filter(organisation=user.organisation_id, enabled=True)
    return rows.filter(pk__in=list(ids)).first()


def required_of(user: User) -> IdentityProvider | None:
    """The provider that the person's organisation insists on."""
    return IdentityProvider.objects.filter(
        organisation=user.organisation_id, enabled=True, required=True
    ).first()


def domains(row: IdentityProvider) -> list[str]:
    return row.domains.split()


def secret(row: IdentityProvider) -> str:
    """Raises sealing.UnreadableError."""
    return sealing.unseal(row.secret)


# --- whom it signs in -----------------------------------------------------------------------------


def person(row: IdentityProvider, claims: Claims, *, now: datetime) -> User:
    """Whose sign-in this is; links them the first time. Raises Refused."""
    known = (
        SocialAccount.objects.select_related("user__organisation")
        .filter(provider=row.pk, uid=claims.subject)
        .first()
    )
    if known is not None:
        if known.user.organisation_id != row.organisation_id:
            raise _not_invited(row)
        found: User = known.user
        return found
    return _invited(row, claims, now)


def _invited(row: IdentityProvider, claims: Claims, now: datetime) -> User:
    if not claims.email_verified:
        raise Refused(
            "email_unverified",
            _("%(provider)s has not verified your e-mail address, so it does not say who you are "
              "here. Verify it there, or ask an administrator to link you.")
            % {"provider": row.name},
        )  # fmt: skip
    domain = claims.email.rpartition("@")[2].lower()
    if domain not in domains(row):
        raise _not_invited(row)
    with transaction.atomic():
        rows = User.objects.select_related("organisation").select_for_update(of=("self",))
        found = list(
            rows.filter(
                organisation=row.organisation_id, email__iexact=claims.email, is_active=True
            )[:2]
        )
        if len(found) != 1 or SocialAccount.objects.filter(provider=row.pk, user=found[0]).exists():
            raise _not_invited(row)
        link(found[0], row, claims.subject, actor=found[0], now=now)
    return found[0]


def _not_invited(row: IdentityProvider) -> Refused:
    return Refused(
        "not_invited",
        _("%(provider)s knows you, but no account here is yours. Ask an administrator to invite "
          "you with the e-mail address that you have there.") % {"provider": row.name},
    )  # fmt: skip


def link(
    user: User, row: IdentityProvider, subject: str, *, actor: "User | str", now: datetime
) -> None:
    """Say that this subject of the provider is this person. Raises Invalid, Conflict."""
    if user.organisation_id != row.organisation_id:
        raise Invalid(_("The provider is of another organisation than the person."))
    if not subject or len(subject) > MAX_SUBJECT or not subject.isprintable():
        raise Invalid(_("A subject has at most 191 printable characters."))
    with transaction.atomic():
        taken = SocialAccount.objects.filter(provider=row.pk, uid=subject).first()
        if taken is not None and taken.user_id != user.pk:
            raise Conflict(_("This subject is linked to somebody else."))
        if SocialAccount.objects.filter(provider=row.pk, user=user).exclude(uid=subject).exists():
            raise Conflict(_("Another subject of this provider is linked to that person."))
        SocialAccount.objects.get_or_create(provider=row.pk, uid=subject, defaults={"user": user})
        _record(row.organisation, actor, "account:link", now)


def refuse(row: IdentityProvider, reason: str, *, now: datetime) -> None:
    """Record that the provider's answer let nobody in; who it was is not known here."""
    audit.record_refusal(
        organisation=row.organisation, actor="portal", action="account:sign_in", reason=reason,
        now=now,
    )  # fmt: skip


# --- writes ---------------------------------------------------------------------------------------


def add(
    organisation: Organisation,
    *,
    name: str,
    issuer: str,
    client_id: str,
    client_secret: str,
    domain_names: list[str],
    actor: "User | str",
    now: datetime,
    required: bool = False,
    trusts_mfa: bool = False,
) -> IdentityProvider:
    """Raises Invalid, Conflict."""
    if not name.strip() or len(name) > 40 or not client_id or not client_secret:
        raise Invalid(_("Give a name of at most 40 characters, the client's id and its secret."))
    with transaction.atomic():
        row = IdentityProvider.objects.create(
            id="p" + new_short_id(),  # so that no command line takes it for an option
            organisation=organisation,
            name=name.strip(),
            issuer=check_issuer(issuer),
            client_id=client_id,
            secret=sealing.seal(client_secret),
            domains=" ".join(_check_domains(domain_names, None)),
            required=required,
            trusts_mfa=trusts_mfa,
            created_at=now,
        )
        _record(organisation, actor, "provider:add", now)
    return row


def change(
    provider_id: str, *, actor: "User | str", now: datetime, **changes: Any
) -> IdentityProvider:
    """Set `enabled`, `required`, `trusts_mfa`, `domain_names`, `client_secret`; not the issuer.
    Raises NotFound, Invalid, Conflict."""
    with transaction.atomic():
        row = IdentityProvider.objects.select_for_update().filter(pk=provider_id).first()
        if row is None:
            raise NotFound(_("There is no such provider. Those there are: manage.py provider show"))
        if (names := changes.pop("domain_names", None)) is not None:
            row.domains = " ".join(_check_domains(names, row))
        if (client_secret := changes.pop("client_secret", None)) is not None:
            row.secret = sealing.seal(client_secret)
        for name in ("enabled", "required", "trusts_mfa"):
            setattr(row, name, changes.pop(name, getattr(row, name)))
        if changes:
            raise Invalid(_("That of a provider does not change. Add another one."))
        row.save()
        _record(row.organisation, actor, "provider:change", now)
    return row


def check_issuer(issuer: str) -> str:
    """https, or http on this machine; exactly as the provider writes it. Raises Invalid."""
    parts = urlsplit(issuer)
    if not is_secure(issuer) or parts.query or parts.fragment or len(issuer) > 200:
        raise Invalid(_("Write the issuer as the provider does: https://login.hospital.example"))
    return issuer


def is_secure(address: Any) -> bool:
    """https; or http where nothing leaves this machine."""
    if not isinstance(address, str):
        return False
    try:
        parts = urlsplit(address)
    except ValueError:
        return False
    local = parts.scheme == "http" and parts.hostname in _LOCAL
    return bool(parts.hostname) and (parts.scheme == "https" or local)


def _check_domains(names: list[str], row: IdentityProvider | None) -> list[str]:
    wanted = sorted({name.strip().lower() for name in names})
    for name in wanted:
        try:
            validate_email(f"somebody@{name}")
        except ValidationError as error:
            raise Invalid(_("“%s” is no domain of e-mail addresses.") % name) from error
        for other in IdentityProvider.objects.exclude(pk=row.pk if row else ""):
            if name in domains(other):
                raise Conflict(_("“%s” belongs to another provider already.") % name)
    if not wanted:
        raise Invalid(_("Give at least one domain of its people's e-mail addresses."))
    return wanted


def _record(organisation: Organisation, actor: "User | str", action: str, now: datetime) -> None:
    audit.record(
        organisation=organisation, actor=actor, action=action, outcome=Outcome.ALLOWED, now=now
    )
