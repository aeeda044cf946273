"""What holds for every page: no inline script or style, a language, landmarks, labels, no cache.

Every GET route that is no API is asked, in both languages, so a new page is tested by being there.
"""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client

from agent.wire.catalogue import SessionState
from fleet.access.models import Session
from fleet.accounts.models import IdentityProvider, User
from fleet.core import clock
from fleet.inventory.models import Device
from fleet.jobs.models import Execution
from fleet.servers import services
from fleet.telemetry.models import Condition, Event, Sample
from tests.fleet.routes import ROUTES, fill
from tests.fleet.servers.making import add

# Not pages: for programs, or answering to POST alone.
_SKIPPED = re.compile(
    r"^(-/|metrics|enrol|api/|sign-out|language)|\.(json|txt|pdf)$"
    r"|/(end|again|browser|cancel|bundle|verify|revoke|acknowledge|move|retire|samples|tokens|use)/$"
    # Of people without a second factor, or in the middle of signing in: accounts/test_pages.
    r"|^account/security/(needed|app|codes|passkeys/<int:pk>/remove)/$|^sign-in/(code|passkey|with/<str:provider_id>/back)/$"
)
PAGES = [route for route in ROUTES if not _SKIPPED.search(route)]
PUBLIC = ("sign-in/", "sign-in/organisation/", "sign-in/with/<str:provider_id>/", "allow-list/")
_INLINE_HANDLER = re.compile(r"^on[a-z]+$")


@pytest.fixture
def paths(
    device: Device, reach: Callable[..., Session], execution: Execution, administrator: User
) -> dict[str, str]:
    now = clock.now()
    common: dict[str, Any] = {"device": device, "organisation": device.organisation}
    values = {"pressure_kpa_a": 312.0, "pressure_limit_kpa": 2068.0, "heater_duty": 0.4}
    Sample.objects.create(**common, at=now, received_at=now, state="idle", values=values)
    Event.objects.create(
        **common, code=103, priority="M", phase="raised", syringe="a", value=900.0, at=now,
        received_at=now, outbox="a" * 32, seq=1,
    )  # fmt: skip
    Condition.objects.create(**common, code=103, priority="M", raised_at=now)
    session = reach(SessionState.ACTIVE)
    add(administrator, "east", listed_on=services.earliest(now.date()))
    services.note_health(
        "east", linked=False, trouble="tls", devices=0, now=now,
        certificates_end_at=now + timedelta(days=3),
    )  # fmt: skip
    provider = IdentityProvider.objects.create(
        organisation=device.organisation, name="North ID", issuer="https://a.example",
        client_id="c", secret="x", domains="a.example", created_at=now,
    )  # fmt: skip
    ids = {
        "device": device.pk, "session": session.pk, "job": execution.job_id, "server": "east",
        "provider": provider.pk,
    }  # fmt: skip
    return {route: fill(route, {n: ids[k] for n, k in ROUTES[route][1].items()}) for route in PAGES}


@pytest.mark.parametrize("language", ["en", "fr-ca"])
@pytest.mark.parametrize("route", PAGES)
def test_a_page_is_whole_and_safe(
    route: str,
    language: str,
    paths: dict[str, str],
    owner: User,
    administrator: User,
    member: User,
    browser: Callable[[User], Client],
    read: Callable[[Any], Any],
) -> None:
    """R-ASR-4 (language); THREATS (strict content security policy)."""
    reader = administrator if route.startswith("servers/") else owner
    reader = member if route == "notices/" else reader
    reader.language = language
    reader.save()
    client = browser(reader)
    if route in PUBLIC:
        client = Client(headers={"accept-language": language})
    response = client.get(paths[route])
    assert response.status_code == 200
    whole_and_safe(read(response), response, language)
    if route not in PUBLIC:
        assert "no-store" in response.headers["Cache-Control"]


def whole_and_safe(page: Any, response: Any, language: str) -> None:
    """What holds for every page, whoever reads it."""
    assert page.inside == []
    for tag, attributes in page.elements:
        assert tag != "style"
        assert "style" not in attributes
        assert not any(_INLINE_HANDLER.match(name) for name in attributes), attributes
        assert not str(attributes.get("href", "")).startswith("javascript:")
        if tag == "script":
            assert str(attributes["src"]).startswith("/static/")
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy

    by_tag = [tag for tag, _attributes in page.elements]
    html = next(attributes for tag, attributes in page.elements if tag == "html")
    assert html["lang"] == language
    assert by_tag.count("h1") == 1
    assert by_tag.count("main") == 1
    ids = [attributes["id"] for _tag, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids)), "an id stands twice"
    labelled = {attributes.get("for") for tag, attributes in page.elements if tag == "label"}
    for tag, attributes in page.elements:
        if tag in ("select", "textarea") or (
            tag == "input" and attributes.get("type") not in ("hidden", "radio", "checkbox")
        ):
            assert attributes.get("id") in labelled, f"no label for {attributes}"
        if tag == "img":
            assert "alt" in attributes
    assert by_tag.count("footer") == 1
    assert by_tag.count("caption") == by_tag.count("table"), "a table says what it is"
    assert any(a.get("class") == "skip" and a["href"] == "#main" for _tag, a in page.elements)
    for _tag, attributes in page.elements:
        # What a keyboard scrolls has a name.
        if attributes.get("tabindex") == "0":
            assert attributes.get("role") == "region"
            assert attributes.get("aria-label") or attributes.get("aria-labelledby")


@pytest.mark.parametrize("route", [route for route in PAGES if route not in PUBLIC])
def test_who_is_not_signed_in_is_asked_to(route: str, paths: dict[str, str]) -> None:
    response = Client().get(paths[route])
    assert response.status_code == 302
    assert response.headers["Location"].startswith("/sign-in/?next=")


def test_the_hospital_reads_its_pages(
    paths: dict[str, str], member: User, browser: Callable[[User], Client]
) -> None:
    """The member sees what is theirs, and not what only the vendor does."""
    hidden = {"jobs/new/": 403, "devices/<str:device>/request/": 404}
    hidden |= dict.fromkeys(("access/<str:session>/ticket/", "access/<str:session>/handover/"), 404)
    hidden |= {"sign-in/": 302}  # they are in
    hidden |= dict.fromkeys(("servers/", "servers/new/", "servers/<str:name>/"), 403)
    for route, path in paths.items():
        assert browser(member).get(path).status_code == hidden.get(route, 200), route
