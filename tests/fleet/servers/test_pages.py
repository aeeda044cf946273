"""The administrators' pages of access servers, and the public allow-list.

Requirements: R-CON-3, R-CON-5, R-ASR-1, R-ASR-4, R-ACC-2.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client

from fleet.accounts.models import User
from fleet.core import clock
from fleet.inventory.models import Device
from fleet.servers import services
from fleet.servers.models import AccessServer
from tests.fleet.servers.making import FIELDS, add

pytestmark = pytest.mark.django_db


def text(response: Any) -> str:
    return str(response.content.decode())


def _posted(**fields: Any) -> dict[str, Any]:
    today = clock.now().date().isoformat()
    return {"name": "east", "host": "east.example.org", "listed_on": today, **FIELDS, **fields}


# --- for administrators ---------------------------------------------------------------------------


def test_add_change_stop_and_retire(
    administrator: User, browser: Callable[[User], Client], settings: Any
) -> None:
    settings.PATENCY_NOTICE_DAYS = 0
    client = browser(administrator)
    assert "No access server yet" in text(client.get("/servers/"))
    answer = client.post("/servers/new/", _posted(), follow=True)
    assert answer.redirect_chain == [("/servers/east/", 302)]
    assert "access-server bundle east --out" in text(answer)
    listed = text(client.get("/servers/"))
    assert "east.example.org:443" in listed
    assert "Not linked" in listed

    changed = {"place": "Moncton", "region": "ca", "link": "10.0.0.1:1", "position": 3}
    client.post("/servers/east/", changed)
    row = services.get("east")
    assert (row.place, row.link, row.position) == ("Moncton", "10.0.0.1:1", 3)
    client.post("/servers/east/use/", {"enabled": "0"})
    assert not services.get("east").enabled
    client.post("/servers/east/use/", {"enabled": "1"})
    assert services.get("east").enabled
    end = clock.now().date() + timedelta(days=9)
    client.post("/servers/east/retire/", {"unlisted_on": end.isoformat()})
    assert services.get("east").unlisted_on == end


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": "East"}, "Lower-case letters"),
        ({"name": "portal"}, "own name"),
        ({"link": "nowhere"}, "is not an address"),
        ({"address": "here"}, "are missing or wrong"),
        ({"listed_on": "2020-01-01"}, "Hospitals need notice"),
    ],
)
def test_what_is_wrong_is_said_beside_the_form(
    administrator: User, browser: Callable[[User], Client], fields: dict[str, str], said: str
) -> None:
    answer = browser(administrator).post("/servers/new/", _posted(**fields))
    assert answer.status_code == 400
    assert said in text(answer)
    assert not AccessServer.objects.exists()


def test_what_is_wrong_with_one_that_is_there(
    administrator: User, device: Device, browser: Callable[[User], Client], settings: Any
) -> None:
    settings.PATENCY_NOTICE_DAYS = 30
    today = clock.now().date()
    add(administrator, "east", listed_on=today + timedelta(days=30))
    client = browser(administrator)
    late = {"unlisted_on": today.isoformat()}
    assert "Hospitals need notice" in text(client.post("/servers/east/retire/", late))
    broken = {"place": "x", "region": "x", "link": "x", "position": 1}
    assert "is not an address" in text(client.post("/servers/east/", broken))
    assert client.post("/servers/east/retire/", {}).status_code == 400
    assert client.get("/servers/west/").status_code == 404


def test_how_each_is(administrator: User, browser: Callable[[User], Client]) -> None:
    now = clock.now()
    add(administrator, "east")
    add(administrator, "west", position=20)
    services.note_health("east", linked=True, trouble="", devices=7, now=now)
    services.note_health("west", linked=False, trouble="name", devices=0, now=now)
    page = text(browser(administrator).get("/servers/"))
    assert "Linked" in page
    assert "Another access server answers there" in page
    partial = browser(administrator).get(
        "/servers/", headers={"HX-Request": "true", "HX-Target": "list"}
    )
    assert "<html" not in text(partial)
    administrator.language = "fr-ca"
    administrator.save()
    assert "Un autre serveur d’accès répond" in text(browser(administrator).get("/servers/"))


def _ends(name: str, days: float) -> None:
    now = clock.now()
    services.note_health(
        name, linked=True, trouble="", devices=0, now=now,
        certificates_end_at=now + timedelta(days=days, minutes=1),
    )  # fmt: skip


def test_certificates_that_end_are_said_with_the_command(
    administrator: User, browser: Callable[[User], Client]
) -> None:
    """On its page, in the list and under what is wrong now; the command is whole."""
    for name, days in (("east", 61), ("west", 59), ("north", 13), ("south", -2)):
        add(administrator, name)
        _ends(name, days)
    client = browser(administrator)
    board = text(client.get("/"))
    for name, said in (
        ("west", "59 days left"),
        ("north", "13 days left"),
        ("south", "Over since"),
    ):
        command = f"manage.py access-server bundle {name} --out {name}"
        page = text(client.get(f"/servers/{name}/"))
        assert said in page
        assert f'<div class="command"><code>{command}</code></div>' in page
        assert f"<code>{command}</code>" in board
    assert board.index("bundle south") < board.index("bundle north") < board.index("bundle west")
    for page in (board, text(client.get("/servers/east/"))):
        assert "bundle east --out east" not in page
    listed = text(client.get("/servers/"))
    assert listed.count("Certificates:") == 3
    services.set_enabled(actor=administrator, name="north", enabled=False, now=clock.now())
    assert "bundle north" not in text(client.get("/"))  # nobody connects there
    administrator.language = "fr-ca"
    administrator.save()
    assert "il reste 59 jours" in text(browser(administrator).get("/servers/west/"))


@pytest.mark.parametrize("who", ["owner", "member", "stranger"])
def test_certificates_are_the_administrators_affair(
    who: str, administrator: User, browser: Callable[[User], Client],
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    add(administrator, "east")
    _ends("east", 3)
    assert "east" not in text(browser(request.getfixturevalue(who)).get("/"))


@pytest.mark.parametrize("who", ["owner", "member", "stranger"])
def test_nobody_else_sees_or_does_anything(
    who: str, administrator: User, browser: Callable[[User], Client],
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    add(administrator, "east")
    client = browser(request.getfixturevalue(who))
    for path in ("/servers/", "/servers/new/", "/servers/east/", "/servers/nowhere/"):
        answer = client.get(path)
        assert answer.status_code == 403
        assert FIELDS["link"] not in text(answer)
    for path in ("new/", "east/", "east/use/", "east/retire/"):
        assert client.post(f"/servers/{path}", _posted(enabled="0")).status_code == 403
    assert services.get("east").enabled


def test_the_list_costs_the_same_however_long(
    administrator: User, browser: Callable[[User], Client], django_assert_max_num_queries: Any
) -> None:
    for number in range(9):
        add(administrator, f"s{number}")
    client = browser(administrator)
    with django_assert_max_num_queries(8):
        client.get("/servers/")


# --- for anybody ----------------------------------------------------------------------------------


@pytest.fixture
def published(administrator: User, settings: Any) -> None:
    """The portal, one in use, one to come, one that ends, one that is over."""
    settings.PATENCY_PUBLIC = "portal.example.org:443"
    settings.PATENCY_PUBLIC_ADDRESS = "192.0.2.1"
    settings.PATENCY_PUBLIC_PLACE = "Toronto, Canada"
    settings.PATENCY_NOTICE_DAYS = 30
    today = clock.now().date()
    for name, begins, ends in (
        ("east", -10, None), ("soon", 30, None), ("ending", -90, 40), ("over", -90, -5),
    ):  # fmt: skip
        row = add(administrator, name, address="192.0.2.9")
        row.listed_on = today + timedelta(days=begins)
        row.unlisted_on = today + timedelta(days=ends) if ends is not None else None
        row.enabled = name != "east"  # what we use is our affair; firewalls are not disturbed
        row.save()


def test_one_source_for_every_copy(published: None) -> None:
    """R-CON-3: page, JSON and text say the same."""
    client, today = Client(), clock.now().date()
    found = client.get("/allow-list.json").json()
    assert (found["v"], found["today"], found["notice_days"]) == (1, today.isoformat(), 30)
    hosts = {each["host"]: each for each in found["hosts"]}
    assert list(hosts) == [
        "portal.example.org", "east.example.org", "ending.example.org", "soon.example.org",
    ]  # fmt: skip
    assert hosts["portal.example.org"] == {
        "name": "portal", "host": "portal.example.org", "address": "192.0.2.1", "port": 443,
        "protocol": "tcp", "place": "Toronto, Canada", "region": "", "from": None, "until": None,
        "now": True,
    }  # fmt: skip
    assert [hosts[f"{name}.example.org"]["now"] for name in ("east", "soon", "ending")] == [
        True, False, True,
    ]  # fmt: skip
    coming = [each for each in found["changes"] if each["on"] > found["today"]]
    assert [(each["change"], each["host"]) for each in coming] == [
        ("remove", "ending.example.org"), ("add", "soon.example.org"),
    ]  # fmt: skip
    assert {each["host"] for each in found["changes"]} >= {"over.example.org"}

    lines = text(client.get("/allow-list.txt")).splitlines()
    rows = [line.split() for line in lines if not line.startswith("#")]
    assert [(row[0], row[1], int(row[2])) for row in rows] == [
        (each["host"], each["address"], each["port"]) for each in found["hosts"]
    ]
    page = text(client.get("/allow-list/"))
    for each in found["hosts"]:
        assert each["host"] in page
        assert each["address"] in page
    for change in coming:
        assert f"{change['on']}: {change['host']}" in page


def test_in_french_and_without_a_secret(published: None) -> None:
    answer = Client(headers={"accept-language": "fr-ca"}).get("/allow-list/")
    assert "Hôtes à autoriser" in text(answer)
    assert "n’est plus nécessaire" in text(answer)
    for path in ("/allow-list/", "/allow-list.json", "/allow-list.txt"):
        assert FIELDS["link"] not in text(Client().get(path))


def test_programs_may_keep_a_copy_for_a_while(published: None) -> None:
    for path in ("/allow-list.json", "/allow-list.txt"):
        answer = Client().get(path)
        assert answer.headers["Cache-Control"] == "public, max-age=300"
        assert "Set-Cookie" not in answer.headers
    assert Client().post("/allow-list.json").status_code == 405


def test_without_access_servers_it_is_the_portal_alone(db: None) -> None:
    [only] = Client().get("/allow-list.json").json()["hosts"]
    assert (only["host"], only["port"], only["address"]) == ("127.0.0.1", 8443, None)
    assert text(Client().get("/allow-list.txt")).endswith("127.0.0.1 - 8443 - -\n")
