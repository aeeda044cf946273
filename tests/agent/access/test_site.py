"""Which policy of the hospital's holds at an injector (R-ACC-7, R-CON-9)."""

import stat
from pathlib import Path

import msgspec
import pytest

from agent.access import policy as local_policy
from agent.access import site as sites
from agent.access.policy import Policy
from agent.access.site import Site
from agent.wire.site_policy import Hours, Rule, SitePolicyError, Tightening
from tests.sites import STRANGER, document

LOCAL = Policy()
MONDAY = 345_600_000  # 1970-01-05T00:00Z, in ms
HOUR = 3_600_000


def accepted(site: Site) -> Site:
    assert site.waiting is not None
    return site.accepted(site.waiting.digest)


def held(**fields: object) -> Site:
    return accepted(Site().offered(document(**fields), LOCAL, at_panel=True))  # type: ignore[arg-type]


def test_the_first_one_waits_for_a_person_though_it_only_tightens() -> None:
    site = Site().offered(document(os="deny"), LOCAL, at_panel=True)
    assert site.held is None
    assert site.in_force(LOCAL, 0).os == "ask"
    site = accepted(site)
    assert site.waiting is None
    assert site.in_force(LOCAL, 0).os == "deny"


def test_a_key_never_comes_from_the_network() -> None:
    with pytest.raises(SitePolicyError, match="not accepted"):
        Site().offered(document(os="deny"), LOCAL, at_panel=False)
    with pytest.raises(SitePolicyError, match="not accepted"):
        held().offered(document(2, key=STRANGER, os="deny"), LOCAL, at_panel=False)


def test_another_key_at_the_panel_waits_for_a_person() -> None:
    site = held().offered(document(2, key=STRANGER, os="deny"), LOCAL, at_panel=True)
    assert site.in_force(LOCAL, 0).os == "ask"
    assert accepted(site).in_force(LOCAL, 0).os == "deny"


def test_what_only_tightens_holds_at_once() -> None:
    site = held().offered(document(2, service=Rule.ASK), LOCAL, at_panel=False)
    assert site.waiting is None
    assert site.in_force(LOCAL, 0).service is Rule.ASK


@pytest.mark.parametrize("at_panel", [True, False])
def test_what_loosens_anything_waits_for_a_person(at_panel: bool) -> None:
    site = held(service=Rule.ASK)
    site = site.offered(document(2, service=Rule.ALLOW, os="deny"), LOCAL, at_panel=at_panel)
    assert site.in_force(LOCAL, 0) == held(service=Rule.ASK).in_force(LOCAL, 0)
    assert accepted(site).in_force(LOCAL, 0).service is Rule.ALLOW


def test_no_version_comes_back_and_there_are_no_two_of_one() -> None:
    site = held(version=5)
    for version, why in ((4, "older"), (5, "two of version")):
        with pytest.raises(SitePolicyError, match=why):
            site.offered(document(version, os="deny"), LOCAL, at_panel=True)
    with pytest.raises(SitePolicyError, match="older"):
        site.offered(document(4, key=STRANGER, os="deny"), LOCAL, at_panel=True)
    assert site.offered(document(5), LOCAL, at_panel=True) is site


def test_what_waited_is_not_accepted_once_a_newer_one_holds() -> None:
    site = held(service=Rule.ASK).offered(document(2), LOCAL, at_panel=True)
    assert site.waiting is not None
    site = site.offered(document(3, service=Rule.DENY), LOCAL, at_panel=False)
    assert site.waiting is None
    with pytest.raises(SitePolicyError, match="no such"):
        site.accepted(document(2).digest)


def test_an_older_one_from_the_network_does_not_take_the_place_of_one_that_waits() -> None:
    site = held(service=Rule.ASK).offered(document(3), LOCAL, at_panel=False)
    assert site.offered(document(2, sessions=2), LOCAL, at_panel=False) == site


def test_only_what_was_seen_is_accepted() -> None:
    site = Site().offered(document(), LOCAL, at_panel=True)
    with pytest.raises(SitePolicyError, match="no such"):
        site.accepted(document(os="deny").digest)


def test_a_zone_that_nobody_knows_is_refused_and_shuts_where_it_is_kept() -> None:
    hours = [Hours(days=[1], begins=0, ends=1, os="deny")]
    with pytest.raises(SitePolicyError, match="zone"):
        Site().offered(document(zone="Mars/Olympus", hours=hours), LOCAL, at_panel=True)
    kept = Site(version=1, held=document(zone="Mars/Olympus", hours=hours))
    assert kept.in_force(LOCAL, MONDAY + 9 * HOUR).os == "deny"


def test_hours_are_the_sites_own() -> None:
    hours = [Hours(days=[7], begins=20 * 60, ends=21 * 60, os="deny")]  # Sunday in Toronto
    site = held(zone="America/Toronto", hours=hours)
    rules = [site.in_force(LOCAL, MONDAY + h * HOUR + 1).os for h in (0, 1, 2)]
    assert rules == ["ask", "deny", "ask"]


def test_a_tightening_is_joined_and_the_switch_stays_the_panels() -> None:
    site = msgspec.structs.replace(
        held(), tightening=Tightening(service=Rule.DENY, sessions=4, browser_os=True)
    )
    off = site.in_force(Policy(remote=False), 0)
    assert (off.service, off.sessions, off.browser_os, off.remote) == (Rule.DENY, 1, False, False)


def test_what_is_saved_is_loaded_and_private(tmp_path: Path) -> None:
    site = held(os="deny").offered(document(2), LOCAL, at_panel=True)
    sites.save(tmp_path, site)
    assert sites.load(tmp_path) == site
    assert stat.S_IMODE((tmp_path / sites.FILE).stat().st_mode) == 0o600
    assert sites.in_force(tmp_path, 0).os == "deny"


@pytest.mark.parametrize("what", ["garbage", "policy", "signature", "version"])
def test_a_file_that_cannot_be_believed_shuts_the_door(tmp_path: Path, what: str) -> None:
    """R-ACC-7: whoever edits the disk gets in no sooner."""
    site = held(os="deny")
    assert site.held is not None
    good = site.held
    if what == "policy":
        edited = good.policy.replace(b'"os":"deny"', b'"os":"ask"')
        site = msgspec.structs.replace(site, held=msgspec.structs.replace(good, policy=edited))
    elif what == "signature":
        site = msgspec.structs.replace(site, held=msgspec.structs.replace(good, key=bytes(32)))
    elif what == "version":
        site = msgspec.structs.replace(site, version=7)
    sites.save(tmp_path, site)
    if what == "garbage":
        (tmp_path / sites.FILE).write_bytes(b"\xff{")
    found = sites.load(tmp_path)
    assert found == sites.BROKEN
    shut = found.in_force(LOCAL, 0)
    assert {shut.diagnostics, shut.service, shut.os, shut.jobs} == {"deny"}
    again = accepted(found.offered(document(2), LOCAL, at_panel=True))
    assert again.in_force(LOCAL, 0).os == "ask"


def test_without_a_file_what_the_panel_set_holds(tmp_path: Path) -> None:
    local_policy.save(tmp_path, Policy(service=Rule.DENY))
    assert sites.in_force(tmp_path, 0) == Policy(service=Rule.DENY)
