"""Every refusal of the API is `{"error", "detail"}`, with the remedy, in the reader's language."""

import re
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
from django.http import HttpRequest
from django.test import Client, override_settings
from django.urls import path
from rest_framework.test import APIClient

from fleet.accounts.models import User
from fleet.asgi import application
from fleet.core.serializers import Strict
from fleet.inventory.models import Device, Site
from fleet.jobs.models import Job
from fleet.settings import BASE_DIR
from tests.conftest import PASSWORD
from tests.fleet.live.page import Page

Api = Callable[[User], APIClient]
JOBS, SESSIONS = "/api/v1/jobs/", "/api/v1/access/sessions/"
JSON = "application/json"


def told(answer: Any, status: int, error: str) -> str:
    """The detail of a refusal, once its form is right."""
    assert answer.status_code == status, answer.content
    assert answer["Content-Type"].startswith(JSON)
    body = answer.json()
    assert body["error"] == error
    assert body["detail"]
    return str(body["detail"])


# --- what is sent -------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [JOBS, SESSIONS, f"{SESSIONS}{'0' * 32}/answer/"])
@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "line 1, column 2"),
        (b'{"kind": \xff}', "UTF-8"),
        (b'{"hours": NaN}', "finite numbers"),
        (b'{"hours": ' + b"9" * 5000 + b"}", "finite numbers"),
        (b"[" * 5000, "nested too deeply"),
        (b"[" * 5000 + b"]" * 5000, "nested too deeply"),
        (b'{"a":' * 60 + b"1" + b"}" * 60, "nested too deeply"),
        (b'{"level": "\\ud800"}', "half of a pair"),
        (b'{"kind": ["\\udfff"]}', "half of a pair"),
        (b'{"\\ud800": 1}', "half of a pair"),
    ],
)
def test_what_cannot_be_read_is_told_in_our_words(
    api: Api, owner: User, device: Device, path: str, body: bytes, said: str
) -> None:
    answer = api(owner).post(path, body, content_type=JSON)
    if "answer" in path:
        told(answer, 404, "not_found")  # nothing is read for a session that is not there
    else:
        assert said in told(answer, 400, "parse_error")


@pytest.mark.parametrize("body", [b"", b"[]", b"7", b'"x"', b"null", b"[[1]]"])
def test_json_that_is_no_object_is_invalid(
    api: Api, owner: User, device: Device, body: bytes
) -> None:
    told(api(owner).post(JOBS, body, content_type=JSON), 400, "invalid")


def test_text_beyond_the_first_plane_is_text(api: Api, owner: User, device: Device) -> None:
    body = {"device": device.pk, "level": "😀", "services": ["ssh"], "reason": "repair"}
    answer = api(owner).post(SESSIONS, body, format="json")
    assert "level" in told(answer, 400, "invalid")
    assert "😀" in answer.json()["fields"]["level"][0]


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"filter": {"zzz": 1}}, "filter.zzz"),
        ({"filter": {}, "device": "x"}, "device"),
        ({"filter": {}, "Hours": 1}, "Hours"),
        ({"filter": {"site": "zz"}}, None),
        ({"filter": {"product_line": "zz"}}, None),
        ({"filter": {"state": "zz"}}, "filter.state"),
    ],
)
def test_a_misspelt_filter_queues_nothing(
    api: Api, owner: User, device: Device, body: dict[str, Any], named: str | None
) -> None:
    """R-MNT-3: a job for one must never become a job for all."""
    answer = api(owner).post(JOBS, {"kind": "collect-diagnostics", **body}, format="json")
    detail = told(answer, 400, "invalid")
    assert named is None or named in detail
    assert not Job.objects.exists()


def test_an_unknown_field_of_a_request_is_named(api: Api, owner: User, device: Device) -> None:
    body = {"device": device.pk, "level": "os", "services": ["ssh"], "reason": "repair"}
    answer = api(owner).post(SESSIONS, {**body, "lifes": 60}, format="json")
    assert "lifes" in told(answer, 400, "invalid")
    assert "life_s" in answer.json()["fields"]["lifes"][0]


def test_every_serializer_that_takes_input_is_strict() -> None:
    """Whoever adds one that is not hears of it here: begin with `StrictSerializer`, or `Strict`."""
    seen = set()
    for file in sorted((BASE_DIR / "fleet").glob("*/api.py")):
        module = import_module(f"fleet.{file.parent.name}.api")
        for name in re.findall(r"(\w+)\(data=", file.read_text(encoding="utf-8")):
            seen.add(name)
            assert issubclass(getattr(module, name), Strict), f"{file}: {name}"
    assert {"NewJobSerializer", "RequestSerializer", "ServerSerializer"} <= seen


# --- filters of lists ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("devices/?state=zz", "idle"),
        ("devices/?product_line=zz", "ct-multi"),
        ("devices/?site=zz", "Main"),
        ("devices/?online=zz", "true or false"),
        ("devices/?q=" + "x" * 81, "80"),
        ("access/sessions/?state=zz", "requested"),
    ],
)
def test_a_filter_that_means_nothing_is_refused(
    api: Api, owner: User, device: Device, path: str, said: str
) -> None:
    assert said in told(api(owner).get(f"/api/v1/{path}"), 400, "invalid")


def test_anothers_site_is_none(api: Api, member: User, device: Device, other_site: Site) -> None:
    """R-ACC-2: it reads as one that is not there, and is not among those named."""
    client = api(member)
    known = client.get(f"/api/v1/devices/?site={other_site.pk}")
    assert other_site.name not in told(known, 400, "invalid")
    assert known.json() == client.get("/api/v1/devices/?site=none").json()
    assert client.get(f"/api/v1/devices/?site={device.site_id}").json()["count"] == 1


# --- who, where and how -------------------------------------------------------------------------


def test_each_refusal_has_its_remedy(api: Api, owner: User, member: User, device: Device) -> None:
    client = api(owner)
    assert "Bearer TOKEN" in told(APIClient().get(JOBS), 401, "not_authenticated")
    wrong = APIClient()
    wrong.credentials(HTTP_AUTHORIZATION="Bearer pat_nothing")
    assert "new one" in told(wrong.get(JOBS), 401, "authentication_failed")
    assert "administrator" in told(api(member).post(JOBS, {}, format="json"), 403, "not_allowed")
    assert "page 1" in told(client.get("/api/v1/devices/?page=99"), 404, "not_found")
    assert "identifier" in told(client.get("/api/v1/nothing/"), 404, "not_found")
    assert "GET" in told(client.put("/api/v1/me/"), 405, "method_not_allowed")
    assert "OPTIONS" in told(client.put("/api/v1/schema/"), 405, "method_not_allowed")
    assert JSON in told(client.get("/api/v1/me/", HTTP_ACCEPT="text/csv"), 406, "not_acceptable")
    answer = client.post(JOBS, "kind=x", content_type="text/plain")
    assert JSON in told(answer, 415, "unsupported_media_type")


def test_the_browsers_cookie_alone_writes_nothing(member: User, device: Device) -> None:
    client = APIClient(enforce_csrf_checks=True)
    assert client.login(username="member", password=PASSWORD)
    answer = client.post(JOBS, {"kind": "collect-diagnostics", "filter": {}}, format="json")
    assert "Reload the page" in told(answer, 403, "permission_denied")


def test_refusals_speak_french(api: Api, stranger: User, device: Device) -> None:
    """R-ASR-4: by the account's language, and by what a program asks for."""
    User.objects.filter(pk=stranger.pk).update(language="fr-ca")
    assert "Adressez-vous" in told(api(stranger).post(JOBS, {}, format="json"), 403, "not_allowed")
    headers = {"accept-language": "fr-CA"}
    assert "Vérifiez" in told(Client().get("/api/v1/nothing/", headers=headers), 404, "not_found")
    client = APIClient(headers=headers)  # type: ignore[no-untyped-call]
    assert "jeton" in told(client.get(JOBS), 401, "not_authenticated")
    assert "Sont possibles" in told(client.delete("/-/live"), 405, "method_not_allowed")


@pytest.mark.parametrize("path", ["/-/live", "/-/ready", "/metrics", "/enrol/v1"])
def test_programs_addresses_name_their_methods(path: str) -> None:
    client = Client(enforce_csrf_checks=True)
    answer = client.put(path) if path.startswith("/enrol") else client.post(path)
    assert answer["Allow"] in told(answer, 405, "method_not_allowed")


def _fails(request: HttpRequest) -> None:
    raise RuntimeError("a fault of ours")


urlpatterns = [path("api/v1/fails/", _fails)]
handler500 = "fleet.pages.errors.server_error"


def test_a_fault_of_ours_has_the_same_form() -> None:
    client = Client(raise_request_exception=False)
    with override_settings(ROOT_URLCONF=__name__):
        answer = client.get("/api/v1/fails/")
    assert "a fault of ours" not in told(answer, 500, "server_error")


# --- websockets ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/ws/live/x", "/ws/live", "/ws/live//", "/ws/", "/ws/other/"])
async def test_a_websocket_that_nobody_serves_is_closed(path: str) -> None:
    socket = Page(application, [], path=path)
    await socket.connect()
    message = await socket.receive_output(5)
    assert (message["type"], message["code"]) == ("websocket.close", 4404)
    await socket.disconnect()
