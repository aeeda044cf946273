"""What an administrator does for people: invite them, close an account, give a lost one back."""

from datetime import datetime

from allauth.mfa.models import Authenticator
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils.translation import gettext as _

from agent.wire.catalogue import Outcome
from fleet.accounts import sign_ins
from fleet.accounts.models import Organisation, OrganisationKind, Role, User
from fleet.audit import services as audit
from fleet.core.errors import Invalid


def invite(
    organisation: Organisation,
    *,
    username: str,
    role: Role,
    email: str,
    first_name: str,
    last_name: str,
    password: str | None,
    actor: User | str,
    now: datetime,
) -> User:
    """A new account. With an e-mail address, the organisation's provider may sign it in; without a
    password, nothing else does. Raises Invalid."""
    if (role is Role.HOSPITAL) != (organisation.kind == OrganisationKind.HOSPITAL):
        raise Invalid(_("That role is not for people of that organisation."))
    user = User(
        username=username, organisation=organisation, role=role.value, email=email.lower(),
        first_name=first_name, last_name=last_name, language=organisation.language,
    )  # fmt: skip
    if password is None:
        user.set_unusable_password()
    else:
        user.set_password(password)
    with transaction.atomic():
        taken = User.objects.filter(organisation=organisation, email__iexact=email)
        if email and taken.exists():
            raise Invalid(_("Somebody of the organisation has this e-mail address already."))
        try:
            user.full_clean()
        except ValidationError as error:
            raise Invalid(" ".join(error.messages)) from error
        user.save()
        _record(user, "account:invite", actor, now)
    return user


def reset(user: User, *, actor: User | str, now: datetime) -> None:
    """For who lost telephone and codes: no second factor, no session, no token is left. The next
    sign-in sets a second factor up again."""
    with transaction.atomic():
        Authenticator.objects.filter(user=user).delete()
        user.tokens.all().delete()
        sign_ins.end_others(user, keep=None, now=now)
        _record(user, "account:reset", actor, now)


def close(user: User, *, closed: bool, actor: User | str, now: datetime) -> None:
    """Close an account, with its sessions and tokens, or open it again."""
    with transaction.atomic():
        User.objects.filter(pk=user.pk).update(is_active=not closed)
        if closed:
            user.tokens.all().delete()
            sign_ins.end_others(user, keep=None, now=now)
        _record(user, "account:close" if closed else "account:open", actor, now)


def _record(user: User, action: str, actor: User | str, now: datetime) -> None:
    audit.record(
        organisation=user.organisation, actor=actor, action=action, outcome=Outcome.ALLOWED, now=now
    )
