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
    NOTICE_SET = "notice:set"


ROLE_ACTIONS: dict[Role, frozenset[Action]] = {
    Role.ADMINISTRATOR: frozenset(Action) - {Action.ACCESS_ANSWER, Action.NOTICE_SET},
    Role.SPECIALIST: frozenset(Action)
    - {
        Action.DEVICE_ENROL,
        Action.DEVICE_REVOKE,
        Action.DEVICE_MOVE,
        Action.AUDIT_VERIFY,
        Action.SERVER_MANAGE,
        Action.NOTICE_SET,
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
            Action.NOTICE_SET,
        }
    ),
}


class Scope(StrEnum):
    """What a token may be used for. Few, so that people choose and do not tick everything."""

    READ = "read"
    ACCESS = "access"  # ask for access, answer, use and end sessions
    JOBS = "jobs"
    ADMIN = "admin"


SCOPE_OF: dict[Action, Scope] = {
    Action.DEVICE_VIEW: Scope.READ,
    Action.DEVICE_WATCH: Scope.READ,
    Action.DEVICE_ENROL: Scope.ADMIN,
    Action.DEVICE_REVOKE: Scope.ADMIN,
    Action.DEVICE_MOVE: Scope.ADMIN,
    Action.EVENT_VIEW: Scope.READ,
    Action.ACCESS_REQUEST: Scope.ACCESS,
    Action.ACCESS_VIEW: Scope.READ,
    Action.ACCESS_END: Scope.ACCESS,
    Action.ACCESS_ANSWER: Scope.ACCESS,
    Action.JOB_CREATE: Scope.JOBS,
    Action.JOB_VIEW: Scope.READ,
    Action.JOB_CANCEL: Scope.JOBS,
    Action.BUNDLE_DOWNLOAD: Scope.JOBS,
    Action.AUDIT_VIEW: Scope.READ,
    Action.AUDIT_VERIFY: Scope.READ,
    Action.SERVER_MANAGE: Scope.ADMIN,
    Action.NOTICE_SET: Scope.ACCESS,
}


def allowed(user: User | AnonymousUser | Any, action: Action) -> bool:
    """Whether the user's role includes the action at all, wherever, and so does the token that
    speaks for them, if it is one that does."""
    if not isinstance(user, User) or not user.is_active:
        return False
    return action in ROLE_ACTIONS[Role(user.role)] and in_scope(user, action)


def in_scope(user: User, action: Action) -> bool:
    return user.token_scopes is None or SCOPE_OF[action].value in user.token_scopes


def scopes_of(role: Role) -> list[Scope]:
    """What a token of this role can be made for: never more than its owner may do."""
    mine = {SCOPE_OF[action] for action in ROLE_ACTIONS[role]}
    return [scope for scope in Scope if scope in mine]


def require(user: User | AnonymousUser | Any, action: Action) -> User:
    """The user, if the role includes the action. Raises NotAllowed."""
    if not isinstance(user, User) or not allowed(user, action):
        may = isinstance(user, User) and user.is_active and action in ROLE_ACTIONS[Role(user.role)]
        if may:  # and so it is the token that does not
            raise NotAllowed(
                _("This token is not for that: it lacks “%(scope)s”. Make one that has it.")
                % {"scope": SCOPE_OF[action].value},
                reason="out_of_scope",
            )
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
