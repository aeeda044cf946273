"""The demo's people: made once, their tokens kept, their keys in a signed roster."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from fleet.access.models import Roster
from fleet.accounts.models import ApiToken, Organisation, SpecialistKey, User
from fleet.client import profile
from fleet.core import clock
from fleet.core.errors import Conflict
from fleet.demo import people
from fleet.demo.plan import plan
from fleet.enrolment import ca

pytestmark = pytest.mark.django_db


def test_everybody_is_made_once_and_keeps_the_token() -> None:
    people.organisations(plan())
    first = people.people(plan(), {})
    tokens = {person.user.username: person.token for person in first}
    people.organisations(plan())
    again = people.people(plan(), tokens)
    assert {person.user.username: person.token for person in again} == tokens
    assert User.objects.count() == 5
    assert Organisation.objects.count() == 3
    assert ApiToken.objects.count() == 5
    for person in first:
        assert person.user.check_password(plan().password)


def test_a_token_that_ended_or_is_somebody_elses_is_replaced() -> None:
    people.organisations(plan())
    first = {p.user.username: p.token for p in people.people(plan(), {})}
    ApiToken.objects.filter(user__username="maya").update(
        expires_at=clock.now() + timedelta(hours=1)
    )
    swapped = first | {"luc": first["admin"]}
    again = {p.user.username: p.token for p in people.people(plan(), swapped)}
    assert again["maya"] != first["maya"]
    assert again["luc"] not in (first["luc"], first["admin"])
    assert again["admin"] == first["admin"]


def test_specialists_have_profiles_and_are_on_the_signed_roster(portal_data: Path) -> None:
    """R-ACC-4: the trust folder and its command sign, apart from the portal."""
    ca.init(now=clock.now())
    people.organisations(plan())
    everybody = people.people(plan(), {})
    public = people.profiles(everybody, portal_data, "http://localhost:1")
    assert set(public) == {"maya", "luc"}
    mine = profile.load(portal_data / plan().profile)
    assert mine.specialist == "maya"
    assert mine.device_root_path.read_text() == ca.pem("device-root")
    assert people.profiles(everybody, portal_data, "http://localhost:1") == public
    assert SpecialistKey.objects.count() == 2
    people.trust_key(portal_data)
    for version in (1, 2):  # a start each
        assert people.trust_key(portal_data) == people.trust_key(portal_data)
        people.roster(everybody, public, plan(), portal_data)
        newest = Roster.objects.order_by("-version")[0]
        assert newest.version == version
    members = json.loads((portal_data / "trust" / "members.json").read_bytes())
    assert [member["id"] for member in members] == ["maya", "luc"]


def test_a_signing_that_fails_is_said(portal_data: Path) -> None:
    with pytest.raises(Conflict, match="patency trust sign"):
        people._patency("trust", "sign", "--trust", str(portal_data), "--members", "/nowhere")


@pytest.mark.parametrize("garbage", [b"", b"garbage", b"\xff\xfe", b"AAAA"])
def test_a_damaged_key_of_an_earlier_start_is_named(portal_data: Path, garbage: bytes) -> None:
    ca.init(now=clock.now())
    people.organisations(plan())
    everybody = people.people(plan(), {})
    people.profiles(everybody, portal_data, "http://localhost:1")
    people.trust_key(portal_data)
    (portal_data / "trust" / "trust.pub").write_bytes(garbage)
    with pytest.raises(Conflict, match=r"trust\.pub: it is damaged. Start afresh with: rm -r"):
        people.trust_key(portal_data)
    key = portal_data / str(plan().profile) / "id_ed25519"
    key.write_bytes(garbage)
    with pytest.raises(Conflict, match=r"id_ed25519: .*Start afresh with: rm -r"):
        people.profiles(everybody, portal_data, "http://localhost:1")
