"""A token does what it was made for and no more (R-ACC-2), on every route and websocket."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from rest_framework.test import APIClient

from agent.wire.catalogue import SessionState
from fleet.access.models import Session
from fleet.access.stream import DoorClosedError, Pass, admit
from fleet.accounts import services
from fleet.accounts.models import ApiToken, Role, User
from fleet.accounts.permissions import (
    ROLE_ACTIONS,
    SCOPE_OF,
    Action,
    Scope,
    allowed,
    scopes_of,
)
from fleet.core.errors import Invalid
from tests.fleet.access.conftest import ask as ask
from tests.fleet.access.conftest import injector as injector
from tests.fleet.access.conftest import now as now
from tests.fleet.access.conftest import reach as reach
from tests.fleet.access.conftest import sign as sign
from tests.fleet.access.conftest import specialist_key as specialist_key
from tests.fleet.routes import ROUTES, Kind, fill
from tests.mfa import open_session

CALLS = [
    route
    for route, (kind, _ids) in ROUTES.items()
    if route.startswith("api/v1/") and kind is not Kind.PUBLIC
]


def _client(user: User, *scopes: str) -> APIClient:
    client = APIClient()
    secret = services.issue_token(user, "test", timedelta(hours=1), scopes=scopes)
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {secret}")
    return client


def test_every_action_has_its_scope() -> None:
    assert set(SCOPE_OF) == set(Action)
    for action, scope in SCOPE_OF.items():
        reads = action.value.endswith((":view", ":watch", ":verify"))
        assert (scope is Scope.READ) == reads, action


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("scope", list(Scope))
def test_role_and_scope_are_both_asked(
    role: Role, scope: Scope, make_user: Any, vendor: Any
) -> None:
    user = make_user(vendor, role.value)
    user.token_scopes = frozenset({scope.value})
    for action in Action:
        wanted = action in ROLE_ACTIONS[role] and SCOPE_OF[action] is scope
        assert allowed(user, action) is wanted


@pytest.mark.parametrize("route", CALLS)
@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_a_token_to_read_changes_nothing(
    route: str, method: str, administrator: User, owner: User, reach: Callable[..., Session]
) -> None:
    """Every call of the URL table, as the two people who may do most."""
    session = reach(SessionState.CHALLENGED)
    ids = {"device": session.device_id, "session": session.pk}
    path = fill(route, {n: ids.get(k, "0" * 32) for n, k in ROUTES[route][1].items()})
    for person in (administrator, owner):
        answer = getattr(_client(person, "read"), method)(path, {}, format="json")
        # An answer is read before it is asked whose it is: 400 says no more than that.
        allowed_too = {400} if route.endswith("answer/") else set()
        # 401: the browser client's calls, which take no token but the pass of one session.
        assert answer.status_code in {401, 403, 404, 405} | allowed_too, answer.content
    session.refresh_from_db()
    assert session.state == SessionState.CHALLENGED.value


def test_the_refusal_names_what_is_missing(administrator: User, device: Any) -> None:
    answer = _client(administrator, "read", "jobs").post(
        f"/api/v1/devices/{device.pk}/revoke/", {"reason": "lost"}, format="json"
    )
    assert answer.status_code == 403
    assert "“admin”" in answer.json()["detail"]
    assert answer.json()["reason"] == "out_of_scope"


def test_a_stream_wants_a_token_for_access(owner: User, reach: Callable[..., Session]) -> None:
    session = reach(SessionState.ACTIVE)
    life = timedelta(hours=1)
    for scopes, wanted in ((["read"], 4403), (["read", "access"], None), (["access"], 4404)):
        secret = services.issue_token(owner, "x", life, scopes=scopes)
        if wanted is None:
            assert admit(Pass(secret, None, None), session.pk) == session.device_id
            continue
        with pytest.raises(DoorClosedError) as refused:
            admit(Pass(secret, None, None), session.pk)
        assert refused.value.code == wanted


def test_never_more_than_the_owner_may(owner: User, member: User, administrator: User) -> None:
    assert scopes_of(Role.HOSPITAL) == [Scope.READ, Scope.ACCESS]
    for user, scopes in ((member, ["jobs"]), (owner, ["read", "admin"]), (owner, ["root"])):
        with pytest.raises(Invalid, match="Your role does not include"):
            services.issue_token(user, "x", timedelta(days=1), scopes=scopes)
    services.issue_token(owner, "x", timedelta(days=1))
    assert ApiToken.objects.get().scopes == "read access jobs"
    # A role that shrinks takes its tokens along.
    User.objects.filter(pk=administrator.pk).update(role="specialist")
    administrator.refresh_from_db()
    secret = services.issue_token(administrator, "y", timedelta(days=1))
    found = services.use_token(secret, now=ApiToken.objects.latest("pk").created_at)
    assert not allowed(found, Action.SERVER_MANAGE)


def test_what_does_more_than_read_lives_ninety_days(owner: User) -> None:
    services.issue_token(owner, "x", timedelta(days=366), scopes=["read"])
    services.issue_token(owner, "x", timedelta(days=90), scopes=["read", "jobs"])
    with pytest.raises(Invalid, match="90 days"):
        services.issue_token(owner, "x", timedelta(days=91), scopes=["jobs"])


@pytest.mark.parametrize("age_s", [10, 400])
def test_a_page_that_calls_the_api_has_confirmed_lately(
    age_s: float, owner: User, device: Any
) -> None:
    client = Client()
    open_session(client, owner, age_s=age_s)
    assert client.get("/api/v1/devices/").status_code == 200
    body = {"kind": "collect-diagnostics", "hours": 1, "devices": [device.pk]}
    answer = client.post("/api/v1/jobs/", body, content_type="application/json")
    assert answer.status_code == (201 if age_s < 300 else 403), answer.content
    if age_s > 300:
        assert answer.json()["error"] == "confirm"
