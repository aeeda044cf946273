"""The one door for permission: Role x organisation x action.

Pages, API, websockets and streams all ask here. A stranger's object does not exist:
`get_or_404(restrict(queryset, user, action))`.
"""

from enum import StrEnum
from typing import Any, TypeVar

from django.contrib.auth.models import AnonymousUser
from django.db.models import Model, QuerySet
from django.utils.translation import gettext as _

from fleet.accounts.models import OrganisationKind, Role, User
from fleet.core.errors import NotAllowed

Row = TypeVar("Row", bound=Model)


class Action(StrEnum):
    DEVICE_VIEW = "device:view"
    DEVICE_WATCH = "device:watch"
    DEVICE_ENROL = "device:enrol"
    DEVICE_REVOKE = "device:revoke"
    DEVICE_MOVE = "device:move"
    EVENT_VIEW = "event:view"
    ACCESS_REQUEST = "access:request"
    ACCESS_VIEW = "access:view"
    ACCESS_END = "access:end"
    ACCESS_ANSWER = "access:answer"
    JOB_CREATE = "job:create"
    JOB_VIEW = "job:view"
    JOB_CANCEL = "job:cancel"
    BUNDLE_DOWNLOAD = "bundle:download"
    AUDIT_VIEW = "audit:view"
    AUDIT_VERIFY = "audit:verify"
    SERVER_MANAGE = "server:manage"


ROLE_ACTIONS: dict[Role, frozenset[Action]] = {
    Role.ADMINISTRATOR: frozenset(Action) - {Action.ACCESS_ANSWER},
    Role.SPECIALIST: frozenset(Action)
    - {
        Action.DEVICE_ENROL,
        Action.DEVICE_REVOKE,
        Action.DEVICE_MOVE,
        Action.AUDIT_VERIFY,
        Action.SERVER_MANAGE,
    },
    Role.HOSPITAL: frozenset(
        {
            Action.DEVICE_VIEW,
            Action.DEVICE_WATCH,
            Action.EVENT_VIEW,
            Action.ACCESS_VIEW,
            Action.ACCESS_END,
            Action.JOB_VIEW,
            Action.AUDIT_VIEW,
        }
    ),
}


def allowed(user: User | AnonymousUser | Any, action: Action) -> bool:
    """Whether the user's role includes the action at all, wherever."""
    if not isinstance(user, User) or not user.is_active:
        return False
    return action in ROLE_ACTIONS[Role(user.role)]


def require(user: User | AnonymousUser | Any, action: Action) -> User:
    """The user, if the role includes the action. Raises NotAllowed."""
    if not isinstance(user, User) or not allowed(user, action):
        raise NotAllowed(_("Your role does not include this. Ask an administrator."))
    return user


def everywhere(user: User) -> bool:
    """Whether the user acts in every organisation: people of the vendor do."""
    return user.organisation.kind == OrganisationKind.VENDOR and user.role != Role.HOSPITAL


def restrict(
    queryset: QuerySet[Row], user: User | AnonymousUser | Any, action: Action
) -> QuerySet[Row]:
    """The rows that the user may do `action` to, by each row's own `organisation`."""
    if not isinstance(user, User) or not allowed(user, action):
        return queryset.none()
    if everywhere(user):
        return queryset
    return queryset.filter(organisation=user.organisation_id)
