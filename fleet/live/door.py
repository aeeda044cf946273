"""Who may watch what: the same door as every page (accounts.permissions)."""

from django.apps import apps

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
