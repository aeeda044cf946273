"""The three published contacts at the foot of every page (R-ASR-3)."""

from collections.abc import Callable
from typing import Any

import pytest
from django.conf import settings
from django.test import Client

from agent.panel.contacts import Contacts
from fleet.accounts.models import User
from fleet.inventory.models import Device
from fleet.pages import contacts

LINKS = ["tel:+18005550142", "tel:+18005550143", "mailto:security@patency.example"]


def links(page: Any) -> list[str | None]:
    """Where the contacts in the foot lead."""
    tags = [tag for tag, _attributes in page.elements]
    foot = page.elements[tags.index("address", tags.index("footer")) :]
    return [attributes["href"] for tag, attributes in foot if tag == "a"]


@pytest.mark.parametrize("path", ["/", "/devices/", "/access/", "/jobs/", "/audit/", "/account/"])
def test_everybody_reads_them_on_every_page(
    path: str,
    owner: User,
    member: User,
    stranger: User,
    browser: Callable[[User], Client],
    read: Callable[[Any], Any],
) -> None:
    """R-ASR-3: whoever may see nothing else is told all the same whom to call."""
    for person in (owner, member, stranger):
        assert links(read(browser(person).get(path))) == LINKS, person


def test_they_are_there_before_the_sign_in_and_on_an_error(
    device: Device,
    owner: User,
    stranger: User,
    browser: Callable[[User], Client],
    read: Callable[[Any], Any],
) -> None:
    """R-ASR-3: a page of its own for each device says no more to a stranger than the foot."""
    path = f"/devices/{device.pk}/"
    assert links(read(Client().get("/sign-in/"))) == LINKS
    assert links(read(browser(owner).get(path))) == LINKS
    refused = browser(stranger).get(path)
    assert refused.status_code == 404
    assert links(read(refused)) == LINKS


def test_in_the_readers_language(stranger: User, browser: Callable[[User], Client]) -> None:
    """R-ASR-3, R-ASR-4: under the same names as at the panel."""
    stranger.language = "fr-ca"
    stranger.save()
    text = browser(stranger).get("/").content.decode()
    for name in ("Soutien technique", "Soutien à la connectivité", "Soutien en cybersécurité"):
        assert name in text


def test_the_vendor_sets_them(
    stranger: User, browser: Callable[[User], Client], settings: Any
) -> None:
    settings.PATENCY_CONTACTS = {
        "device": "1-800-REPAIR",
        "connectivity": "https://help.vendor.example/net",
        "cybersecurity": "<psirt@vendor.example>",
    }
    text = browser(stranger).get("/").content.decode()
    assert "<strong>1-800-REPAIR</strong>" in text
    assert 'href="https://help.vendor.example/net"' in text
    assert "<strong>&lt;psirt@vendor.example&gt;</strong>" in text


def test_the_portal_and_the_panel_publish_the_same() -> None:
    """R-ASR-3: until the vendor sets others."""
    panel = Contacts()
    assert {
        "device": panel.device,
        "connectivity": panel.connectivity,
        "cybersecurity": panel.cybersecurity,
    } == settings.PATENCY_CONTACTS


@pytest.mark.parametrize(
    ("reach", "link"),
    [
        ("+1 800 555 0142", "tel:+18005550142"),
        ("(514) 555-0100", "tel:5145550100"),
        ("security@patency.example", "mailto:security@patency.example"),
        ("https://patency.example/security", "https://patency.example/security"),
        ("http://patency.example", ""),
        ("javascript:alert(1)@x", ""),
        ("room 12", ""),
    ],
)
def test_where_a_contact_leads(reach: str, link: str) -> None:
    assert contacts.link(reach) == link
