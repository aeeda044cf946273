"""The API of access servers. Requirements: R-CON-5, R-ACC-2."""

from typing import Any

import pytest

from fleet.accounts.models import User
from fleet.core import clock
from tests.fleet.servers.making import FIELDS, add

pytestmark = pytest.mark.django_db
URL = "/api/v1/servers/"


def test_an_administrator_adds_changes_and_disables(administrator: User, api: Any) -> None:
    client = api(administrator)
    today = clock.now().date().isoformat()
    body = {"name": "east", "host": "east.example.org", "listed_on": today, **FIELDS}
    made = client.post(URL, body, format="json")
    assert made.status_code == 201, made.json()
    assert made.json()["linked"] is False
    assert client.post(URL, body, format="json").json()["error"] == "conflict"
    changed = client.patch(f"{URL}east/", {"position": 3, "enabled": False}, format="json")
    assert (changed.json()["position"], changed.json()["enabled"]) == (3, False)
    assert client.get(URL).json()["results"][0]["name"] == "east"
    assert client.get(f"{URL}east/").json()["host"] == "east.example.org"
    assert client.get(f"{URL}west/").status_code == 404
    assert client.post(URL, {**body, "port": 0}, format="json").status_code == 400


@pytest.mark.parametrize("who", ["owner", "member", "stranger"])
def test_nobody_else(
    who: str, administrator: User, api: Any, request: pytest.FixtureRequest
) -> None:
    add(administrator, "east")
    client = api(request.getfixturevalue(who))
    for answer in (
        client.get(URL),
        client.post(URL, {}, format="json"),
        client.get(f"{URL}east/"),
        client.patch(f"{URL}east/", {"enabled": False}, format="json"),
    ):
        assert answer.json()["error"] == "not_allowed"


def test_the_list_costs_the_same_however_long(
    administrator: User, api: Any, django_assert_max_num_queries: Any
) -> None:
    for number in range(8):
        add(administrator, f"s{number}")
    client = api(administrator)
    with django_assert_max_num_queries(8):
        assert len(client.get(URL).json()["results"]) == 8
