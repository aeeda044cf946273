"""The API of sessions, with the owner, a member and a stranger (R-ACC-3, R-ACC-10)."""

import base64
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from rest_framework.test import APIClient

from agent.wire.catalogue import SessionState
from agent.wire.challenge import decode
from agent.wire.messages import Proof, SshProof
from fleet.access.models import Session
from fleet.accounts.models import User
from fleet.audit.models import Entry
from fleet.inventory.models import Device
from tests.conftest import Ports
from tests.fleet.access.conftest import CLIENT_KEY

S = SessionState
Api = Callable[[User], APIClient]
Reach = Callable[..., Session]
SESSIONS = "/api/v1/access/sessions/"
ASKED = {
    "device": "device-0001", "level": "os", "services": ["ssh"], "reason": "repair",
    "ticket": "T-1", "note": "n", "life_s": 600,
}  # fmt: skip
FIELDS = {
    "session", "device", "serial", "specialist", "level", "services", "reason", "ticket", "note",
    "life_s", "state", "state_reason", "challenge", "challenge_signature", "certificates",
    "request", "online", "created_at", "expires_at", "active_at", "ends_at", "ended_at", "version",
    "ticket_owed", "handover", "handover_at",
}  # fmt: skip


@pytest.fixture
def asker(api: Api, owner: User, device: Device) -> APIClient:
    return api(owner)


def ask(client: APIClient, **changes: Any) -> Any:
    body = {name: value for name, value in {**ASKED, **changes}.items() if value is not ...}
    return client.post(SESSIONS, body, format="json")


def test_asking(asker: APIClient) -> None:
    answer = ask(asker)
    assert answer.status_code == 201
    body = answer.json()
    assert set(body) == FIELDS
    row = Session.objects.get()
    assert body["session"] == row.pk
    assert base64.b64decode(body["request"]) == bytes(row.request)
    assert (body["state"], body["state_reason"], body["challenge"]) == ("requested", None, None)
    assert (body["serial"], body["specialist"], body["ticket"]) == ("SN-TEST", "owner", "T-1")
    assert body["online"] is True
    assert body["version"] == 1


def test_asking_of_an_offline_device_says_so(asker: APIClient, device: Device) -> None:
    Device.objects.filter(pk=device.pk).update(online=False)
    body = ask(asker, ticket=None).json()
    assert body["online"] is False
    assert body["expires_at"] is not None
    assert body["ticket"] is None


def test_asking_by_serial(asker: APIClient, make_device: Any, site: Any) -> None:
    assert ask(asker, device=..., serial="SN-TEST").status_code == 201
    assert ask(asker, device=..., serial="SN-NONE").status_code == 404
    assert ask(asker, device=...).json()["error"] == "invalid"
    from fleet.inventory.models import ProductLine

    line = ProductLine.objects.create(code="mr-dual", name="MR", modality="MR")
    make_device(site, serial="SN-TEST", product_line=line)
    answer = ask(asker, device=..., serial="SN-TEST")
    assert answer.status_code == 400
    assert "Several product lines" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"device": "device-9999"}, 404),
        ({"level": "root"}, 400),
        ({"services": "ssh"}, 400),
        ({"services": ["telnet"]}, 400),
        ({"services": []}, 400),
        ({"level": "service"}, 400),
        ({"reason": "because"}, 400),
        ({"ticket": "a b"}, 400),
        ({"note": "x" * 201}, 400),
        ({"note": "a\nb"}, 400),
        ({"life_s": 59}, 400),
        ({"life_s": 10**12}, 400),
        ({"life_s": "soon"}, 400),
    ],
)
def test_bad_input(asker: APIClient, changes: dict[str, Any], status: int) -> None:
    answer = ask(asker, **changes)
    assert answer.status_code == status
    assert {"error", "detail"} <= set(answer.json())
    assert not Session.objects.exists()


def test_what_is_no_json_is_told(asker: APIClient) -> None:
    answer = asker.post(SESSIONS, b"{", content_type="application/json")
    assert answer.status_code == 400
    assert answer.json()["detail"]


def test_a_second_request_conflicts(asker: APIClient) -> None:
    first = ask(asker).json()["session"]
    answer = ask(asker)
    assert answer.status_code == 409
    assert first in answer.json()["detail"]


def _ssh(signature: str) -> dict[str, str]:
    return {"kind": "ssh", "signature": signature}


def test_answering_over_the_api(
    asker: APIClient, reach: Reach, sign: Callable[[Session], Proof]
) -> None:
    session = reach(S.CHALLENGED)
    shown = asker.get(f"{SESSIONS}{session.pk}/").json()
    assert decode(base64.b64decode(shown["challenge"])).session == session.pk
    assert len(base64.b64decode(shown["certificates"][0])) > 100
    body = {
        "client_key": base64.b64encode(CLIENT_KEY).decode(),
        "proof": msgspec.to_builtins(sign(session)),
    }
    answer = asker.post(f"{SESSIONS}{session.pk}/answer/", body, format="json")
    assert answer.status_code == 200
    assert Session.objects.get().answered_at is not None
    again = asker.post(f"{SESSIONS}{session.pk}/answer/", body, format="json")
    assert again.status_code == 200
    other = {**body, "proof": msgspec.to_builtins(SshProof(signature=b"SSHSIG"))}
    conflict = asker.post(f"{SESSIONS}{session.pk}/answer/", other, format="json")
    assert conflict.status_code == 409


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"client_key": "?", "proof": {"kind": "ssh", "signature": "U1NIU0lH"}},
        {"client_key": 5, "proof": {"kind": "ssh", "signature": "U1NIU0lH"}},
        {"client_key": "AAAA", "proof": {"kind": "ssh", "signature": "U1NIU0lH"}},
        {"client_key": base64.b64encode(bytes(32)).decode(), "proof": _ssh("AAAA")},
        {"client_key": base64.b64encode(bytes(33)).decode(), "proof": _ssh("U1NIU0lH")},
        {
            "client_key": base64.b64encode(bytes(32)).decode(),
            "proof": {"kind": "ssh", "signature": base64.b64encode(bytes(5000)).decode()},
        },
        {"client_key": base64.b64encode(bytes(32)).decode(), "proof": {"kind": "badge"}},
        {"client_key": base64.b64encode(bytes(32)).decode(), "proof": "U1NIU0lH"},
        {
            "client_key": base64.b64encode(bytes(32)).decode(),
            "proof": {"kind": "passkey", "id": "AAAA", "signature": "AAAA"},
        },
    ],
)
def test_bad_answers(asker: APIClient, reach: Reach, body: Any) -> None:
    session = reach(S.CHALLENGED)
    answer = asker.post(f"{SESSIONS}{session.pk}/answer/", body, format="json")
    assert answer.status_code == 400
    assert Session.objects.get().answered_at is None


def test_who_may_do_what(
    api: Api, reach: Reach, colleague: User, administrator: User, member: User
) -> None:
    """The hospital sees and ends, and neither asks nor answers; only the asker answers."""
    session = reach(S.CHALLENGED)
    url = f"{SESSIONS}{session.pk}/"
    body = {"client_key": base64.b64encode(CLIENT_KEY).decode(), "proof": _ssh("U1NIU0lH")}
    assert ask(api(member)).status_code == 403
    for user in (colleague, administrator, member):
        client = api(user)
        assert client.get(url).status_code == 200
        assert client.get(f"{url}audit/").status_code == 200
        assert client.get(f"{url}report/").status_code == 200
        assert client.post(f"{url}answer/", body, format="json").status_code == 403
    assert api(colleague).post(f"{url}end/").status_code == 403
    ended = api(member).post(f"{url}end/")
    assert ended.json()["state_reason"] == "ended_by_hospital"
    assert api(administrator).post(f"{url}end/").json()["state_reason"] == "ended_by_hospital"


def test_the_stranger_gets_nothing(api: Api, reach: Reach, stranger: User) -> None:
    session = reach(S.ACTIVE)
    client, url = api(stranger), f"{SESSIONS}{session.pk}/"
    assert client.get(SESSIONS).json()["results"] == []
    body = {"client_key": base64.b64encode(CLIENT_KEY).decode(), "proof": _ssh("U1NIU0lH")}
    unknown = SESSIONS + "f" * 32 + "/"
    for method, path, data in (
        ("get", "", None),
        ("get", "audit/", None),
        ("get", "report/", None),
        ("post", "end/", None),
        ("post", "answer/", body),
    ):
        call = getattr(client, method)
        mine, nobodys = (call(base + path, data, format="json") for base in (url, unknown))
        assert mine.status_code == nobodys.status_code == 404
        assert mine.json() == nobodys.json()
    assert Session.objects.get().state == S.ACTIVE


def test_nobody_gets_nothing(reach: Reach) -> None:
    session = reach(S.ACTIVE)
    client = APIClient()
    for path in ("", f"{session.pk}/", f"{session.pk}/audit/", f"{session.pk}/report/"):
        assert client.get(SESSIONS + path).status_code == 401
    for path in ("", f"{session.pk}/answer/", f"{session.pk}/end/"):
        assert client.post(SESSIONS + path).status_code == 401


def test_the_list_is_newest_first_in_few_queries(
    asker: APIClient, reach: Reach, make_device: Any, site: Any, django_assert_max_num_queries: Any
) -> None:
    sessions = [reach(S.REQUESTED, device=make_device(site)) for _ in range(3)]
    for n, session in enumerate(sessions):
        Session.objects.filter(pk=session.pk).update(
            created_at=session.created_at + timedelta(seconds=n)
        )
    with django_assert_max_num_queries(4):  # the token, its use, the count, the list
        body = asker.get(SESSIONS).json()
    assert [row["session"] for row in body["results"]] == [s.pk for s in reversed(sessions)]
    assert asker.get(SESSIONS, {"state": "active"}).json()["results"] == []
    assert len(asker.get(SESSIONS, {"state": "requested"}).json()["results"]) == 3


def test_asking_over_the_api_costs_few_queries(
    asker: APIClient, device: Device, django_assert_max_num_queries: Any, ports: Ports
) -> None:
    """p99 of request to wire is 10 ms with the fsync: sign-in, device, and one transaction."""
    asker.get(SESSIONS)  # the token's use is noted once a minute
    with django_assert_max_num_queries(11):
        assert ask(asker).status_code == 201


def test_the_audit_names_both_sides(asker: APIClient, reach: Reach) -> None:
    session = reach(S.ENDED)
    body = asker.get(f"{SESSIONS}{session.pk}/audit/").json()
    assert {entry["side"] for entry in body["entries"]} == {"server"}
    assert body["agree"] is False
    assert body["differences"] == ["device_silent"]
    report = asker.get(f"{SESSIONS}{session.pk}/report/").json()
    assert report["approved_by"] == "approver-1"
    assert report["waited_s"] == 0.0
    assert report["lasted_s"] == 0.0
    assert report["session"]["session"] == session.pk


def test_a_hospital_that_asks_for_access_is_refused_on_record(
    api: Api, member: User, stranger: User, device: Device
) -> None:
    """R-ACC-10: in the chain of whose the device is; a stranger's try in their own, nameless."""
    for user in (member, stranger):
        answer = ask(api(user))
        assert answer.status_code == 403
        assert set(answer.json()) == {"error", "detail"}
    rows = Entry.objects.order_by("pk")
    assert [(r.organisation_id, r.entry["actor"], r.device, r.entry["reason"]) for r in rows] == [
        ("north", "member", device.pk, "not_allowed"),
        ("sud", "stranger", "", "not_allowed"),
    ]
    assert api(member).post(SESSIONS, {"level": 7}, format="json").status_code == 403


def test_why_the_portal_refused_is_told_as_a_code(asker: APIClient, device: Device) -> None:
    assert ask(asker, level="service").json()["reason"] == "level_too_low"
    Device.objects.update(remote_enabled=False)
    assert ask(asker).json()["reason"] == "remote_off"
