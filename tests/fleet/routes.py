"""The URL table, walked: every route with its placeholders, and what each one is.

A new route fails tests/fleet/test_stranger.py until it stands here.
"""

from collections.abc import Iterator
from enum import StrEnum

from django.urls import URLPattern, URLResolver, get_resolver


class Kind(StrEnum):
    PUBLIC = "public"  # for anybody, and shows nothing of anybody
    PERSONAL = "personal"  # about the signed-in person alone
    LIST = "list"  # rows by the reader's scope
    OBJECT = "object"  # one thing: a stranger gets what a wrong id gets
    ROLE = "role"  # the whole page is for some roles only


# route -> (kind, the placeholders' objects: see `World.ids` in test_stranger)
ROUTES: dict[str, tuple[Kind, dict[str, str]]] = {
    "-/live": (Kind.PUBLIC, {}),
    "-/ready": (Kind.PUBLIC, {}),
    "metrics": (Kind.PUBLIC, {}),
    "enrol/v1": (Kind.PUBLIC, {}),
    "api/v1/schema/": (Kind.PUBLIC, {}),
    "api/v1/me/": (Kind.PERSONAL, {}),
    "api/v1/sign-in/device/": (Kind.PUBLIC, {}),
    "api/v1/sign-in/token/": (Kind.PUBLIC, {}),
    "api/v1/devices/": (Kind.LIST, {}),
    "api/v1/devices/<str:device>/": (Kind.OBJECT, {"device": "device"}),
    "api/v1/devices/<str:device>/events/": (Kind.OBJECT, {"device": "device"}),
    "api/v1/devices/<str:device>/identity/": (Kind.OBJECT, {"device": "device"}),
    "api/v1/devices/<str:device>/revoke/": (Kind.OBJECT, {"device": "device"}),
    "api/v1/devices/<str:device>/acknowledge/": (Kind.OBJECT, {"device": "device"}),
    "api/v1/devices/<str:device>/move/": (Kind.OBJECT, {"device": "device"}),
    "api/v1/devices/<str:device>/retire/": (Kind.OBJECT, {"device": "device"}),
    "api/v1/access/sessions/": (Kind.LIST, {}),
    "api/v1/access/sessions/<str:pk>/": (Kind.OBJECT, {"pk": "session"}),
    "api/v1/access/sessions/<str:pk>/answer/": (Kind.OBJECT, {"pk": "session"}),
    "api/v1/access/sessions/<str:pk>/again/": (Kind.OBJECT, {"pk": "session"}),
    "api/v1/access/sessions/<str:pk>/ticket/": (Kind.OBJECT, {"pk": "session"}),
    "api/v1/access/sessions/<str:pk>/handover/": (Kind.OBJECT, {"pk": "session"}),
    "api/v1/access/sessions/<str:pk>/end/": (Kind.OBJECT, {"pk": "session"}),
    "api/v1/access/sessions/<str:pk>/audit/": (Kind.OBJECT, {"pk": "session"}),
    "api/v1/access/sessions/<str:pk>/report/": (Kind.OBJECT, {"pk": "session"}),
    "api/v1/access/browser/pass/": (Kind.PUBLIC, {}),
    "api/v1/access/browser/session/": (Kind.PERSONAL, {}),
    "api/v1/access/browser/session/answer/": (Kind.PERSONAL, {}),
    "api/v1/access/browser/session/end/": (Kind.PERSONAL, {}),
    "api/v1/jobs/": (Kind.LIST, {}),
    "api/v1/jobs/<str:pk>/": (Kind.OBJECT, {"pk": "job"}),
    "api/v1/executions/<str:pk>/": (Kind.OBJECT, {"pk": "execution"}),
    "api/v1/executions/<str:pk>/cancel/": (Kind.OBJECT, {"pk": "execution"}),
    "api/v1/executions/<str:pk>/bundle/": (Kind.OBJECT, {"pk": "execution"}),
    "api/v1/servers/": (Kind.ROLE, {}),
    "api/v1/servers/<str:name>/": (Kind.ROLE, {"name": "server"}),
    "": (Kind.LIST, {}),
    "devices/": (Kind.LIST, {}),
    "devices/<str:device>/": (Kind.OBJECT, {"device": "device"}),
    "devices/<str:device>/samples/": (Kind.OBJECT, {"device": "device"}),
    "devices/<str:device>/identity/": (Kind.OBJECT, {"device": "device"}),
    "devices/<str:device>/revoke/": (Kind.OBJECT, {"device": "device"}),
    "devices/<str:device>/acknowledge/": (Kind.OBJECT, {"device": "device"}),
    "devices/<str:device>/move/": (Kind.OBJECT, {"device": "device"}),
    "devices/<str:device>/retire/": (Kind.OBJECT, {"device": "device"}),
    "devices/<str:device>/request/": (Kind.OBJECT, {"device": "device"}),
    "access/": (Kind.LIST, {}),
    "access/<str:session>/": (Kind.OBJECT, {"session": "session"}),
    "access/<str:session>/again/": (Kind.OBJECT, {"session": "session"}),
    "access/<str:session>/ticket/": (Kind.OBJECT, {"session": "session"}),
    "access/<str:session>/handover/": (Kind.OBJECT, {"session": "session"}),
    "access/<str:session>/end/": (Kind.OBJECT, {"session": "session"}),
    "access/<str:session>/browser/": (Kind.OBJECT, {"session": "session"}),
    "access/<str:session>/report/": (Kind.OBJECT, {"session": "session"}),
    "access/<str:session>/report.pdf": (Kind.OBJECT, {"session": "session"}),
    "notices/": (Kind.PERSONAL, {}),
    "jobs/": (Kind.LIST, {}),
    "jobs/new/": (Kind.ROLE, {}),
    "jobs/<str:job>/": (Kind.OBJECT, {"job": "job"}),
    "executions/<str:execution>/cancel/": (Kind.OBJECT, {"execution": "execution"}),
    "executions/<str:execution>/bundle/": (Kind.OBJECT, {"execution": "execution"}),
    "audit/": (Kind.LIST, {}),
    "audit/verify/": (Kind.PERSONAL, {}),
    "servers/": (Kind.ROLE, {}),
    "servers/new/": (Kind.ROLE, {}),
    "servers/<str:name>/": (Kind.ROLE, {"name": "server"}),
    "servers/<str:name>/use/": (Kind.ROLE, {"name": "server"}),
    "servers/<str:name>/retire/": (Kind.ROLE, {"name": "server"}),
    "allow-list/": (Kind.PUBLIC, {}),
    "allow-list.json": (Kind.PUBLIC, {}),
    "allow-list.txt": (Kind.PUBLIC, {}),
    "account/": (Kind.PERSONAL, {}),
    "account/tokens/": (Kind.PERSONAL, {}),
    "account/tokens/<int:token>/revoke/": (Kind.OBJECT, {"token": "token"}),
    "account/security/": (Kind.PERSONAL, {}),
    "account/security/needed/": (Kind.PERSONAL, {}),
    "account/security/app/": (Kind.PERSONAL, {}),
    "account/security/app/remove/": (Kind.PERSONAL, {}),
    "account/security/codes/": (Kind.PERSONAL, {}),
    "account/security/codes/new/": (Kind.PERSONAL, {}),
    "account/security/passkeys/": (Kind.PERSONAL, {}),
    "account/security/passkeys/new/": (Kind.PERSONAL, {}),
    "account/security/passkeys/<int:pk>/remove/": (Kind.OBJECT, {"pk": "passkey"}),
    "account/security/password/": (Kind.PERSONAL, {}),
    "account/sessions/": (Kind.PERSONAL, {}),
    "account/sessions/end/": (Kind.PERSONAL, {}),
    "account/sessions/<int:sign_in>/end/": (Kind.OBJECT, {"sign_in": "sign_in"}),
    "account/confirm/": (Kind.PERSONAL, {}),
    "connect/": (Kind.PERSONAL, {}),
    "sign-in/": (Kind.PUBLIC, {}),
    "sign-in/code/": (Kind.PUBLIC, {}),
    "sign-in/passkey/": (Kind.PUBLIC, {}),
    "sign-in/organisation/": (Kind.PUBLIC, {}),
    "sign-in/with/<str:provider_id>/": (Kind.PUBLIC, {"provider_id": "provider"}),
    "sign-in/with/<str:provider_id>/back/": (Kind.PUBLIC, {"provider_id": "provider"}),
    "sign-out/": (Kind.PUBLIC, {}),
    "language/": (Kind.PUBLIC, {}),
}


def walk() -> Iterator[str]:
    """Every route of the URL table, as text."""
    yield from _walk(get_resolver().url_patterns, "")


def _walk(patterns: list[URLPattern | URLResolver], prefix: str) -> Iterator[str]:
    for entry in patterns:
        route = prefix + str(entry.pattern)
        if isinstance(entry, URLResolver):
            yield from _walk(entry.url_patterns, route)
        else:
            yield route


def fill(route: str, ids: dict[str, str]) -> str:
    """The path of a route with its placeholders filled."""
    path = route
    for name, value in ids.items():
        for converter in ("str", "slug", "int", "uuid", "path"):
            path = path.replace(f"<{converter}:{name}>", value)
        path = path.replace(f"<{name}>", value)
    if "<" in path:
        raise AssertionError(f"{route} has a placeholder that tests/fleet/routes.py does not fill")
    return "/" + path
