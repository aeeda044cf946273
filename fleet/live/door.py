"""Who may watch what: the same door as every page (accounts.permissions)."""

from django.apps import apps
from django.contrib.auth import HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.base import SessionBase
from django.utils.crypto import constant_time_compare

from fleet.accounts.models import User
from fleet.accounts.permissions import Action, allowed, everywhere, restrict
from fleet.live.groups import Group, Kind

_ROWS = {
    Kind.DEVICE: ("inventory.Device", Action.DEVICE_VIEW),
    Kind.SESSION: ("access.Session", Action.ACCESS_VIEW),
    Kind.EXECUTION: ("jobs.Execution", Action.JOB_VIEW),
}


def may_watch(user: User, group: Group) -> bool:
    if group.kind is Kind.FLEET:
        return allowed(user, Action.DEVICE_VIEW) and everywhere(user)
    if group.kind is Kind.ORGANISATION:
        mine = everywhere(user) or user.organisation_id == group.id
        return mine and allowed(user, Action.DEVICE_VIEW)
    label, action = _ROWS[group.kind]
    rows = apps.get_model(label)._default_manager.filter(pk=group.id)
    return bool(restrict(rows, user, action).exists())


def may_see_live(user: User) -> bool:
    return allowed(user, Action.DEVICE_WATCH)


def still_signed_in(session: SessionBase) -> User | None:
    """The session's user as the database has them now; None once signed out, locked or changed."""
    number = session.get(SESSION_KEY)
    if number is None or not session.session_key or not session.exists(session.session_key):
        return None
    user = (
        User.objects.select_related("organisation").filter(pk=str(number), is_active=True).first()
    )
    if user is None:
        return None
    same = constant_time_compare(session.get(HASH_SESSION_KEY, ""), user.get_session_auth_hash())
    return user if same else None
