"""The site's policy: what the hospital signs, and what only ever tightens it (R-ACC-7)."""

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from agent.wire import site_policy as wire
from agent.wire.catalogue import ClientKind, Level
from agent.wire.site_policy import Hours, Rule, Settings, SitePolicy, SitePolicyError, Tightening

HOSPITAL = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
KEY = HOSPITAL.public_key().public_bytes_raw()
NIGHT = Hours(days=[5], begins=22 * 60, ends=6 * 60, os="deny", service=Rule.ASK)
IT = SitePolicy(version=4, zone="America/Toronto", hours=[NIGHT])
DATA, SIGNATURE = wire.sign(HOSPITAL, IT)


def verify(data: bytes = DATA, signature: bytes = SIGNATURE, **changes: Any) -> SitePolicy:
    return wire.verify(data, signature, **{"key": KEY, "version": 4, **changes})


def test_what_the_hospital_signed_is_believed() -> None:
    assert verify() == IT


def test_nobody_else_signs_one() -> None:
    with pytest.raises(SitePolicyError, match="not signed"):
        verify(*wire.sign(Ed25519PrivateKey.generate(), IT))
    with pytest.raises(SitePolicyError, match="not signed"):
        verify(signature=HOSPITAL.sign(DATA))  # over the bare bytes: for something else
    with pytest.raises(SitePolicyError, match="not signed"):
        verify(DATA.replace(b'"deny"', b'"ask"'))
    with pytest.raises(SitePolicyError, match="not signed"):
        verify(key=b"\xff" * 32)


def test_there_is_no_going_back() -> None:
    with pytest.raises(SitePolicyError, match="older"):
        verify(version=5)


def test_only_the_canonical_form_is_read() -> None:
    spaced = DATA.replace(b",", b", ", 1)
    with pytest.raises(SitePolicyError, match="canonical"):
        verify(spaced, HOSPITAL.sign(b"patency site policy 1\n" + spaced))


@pytest.mark.parametrize(
    "change",
    [
        (b'"os":"ask"', b'"os":"allow"'),
        (b'"approval_wait_s":300', b'"approval_wait_s":601'),
        (b'"ticket_h":0', b'"ticket_h":9'),
        (b'"zone":"America/Toronto"', b'"zone":"../../etc/shadow"'),
        (b'"version":4', b'"version":4,"more":1'),
    ],
)
def test_what_no_policy_may_say(change: tuple[bytes, bytes]) -> None:
    """R-ACC-6: `os` is never allowed without a person, whoever signs."""
    assert change[0] in DATA
    with pytest.raises(SitePolicyError):
        wire.decode(DATA.replace(*change))


def test_hours_go_past_midnight_and_over_the_weekend() -> None:
    friday = 4 * wire.DAY
    assert not NIGHT.hold(friday + 22 * 60 - 1)
    assert NIGHT.hold(friday + 22 * 60)
    assert NIGHT.hold(friday + wire.DAY + 6 * 60 - 1)
    assert not NIGHT.hold(friday + wire.DAY + 6 * 60)
    sunday = Hours(days=[7], begins=23 * 60, ends=60)
    assert sunday.hold(30)  # Monday, half past midnight
    assert Hours(days=[1], begins=0, ends=0).hold(wire.DAY - 1)  # all day
    assert not Hours(days=[1], begins=0, ends=0).hold(wire.DAY)


def test_the_first_hours_that_hold_count_and_an_unknown_time_is_the_strictest() -> None:
    both = SitePolicy(
        version=1,
        service=Rule.ASK,
        hours=[
            Hours(days=[1], begins=60, ends=120, service=Rule.ALLOW),
            Hours(days=[1], begins=0, ends=180, service=Rule.DENY),
        ],
    )
    assert [both.at(m).service for m in (30, 90, 150, 200)] == ["deny", "allow", "deny", "ask"]
    assert both.at(None).service is Rule.DENY


# --- only ever tighter ----------------------------------------------------------------------------

_rule = st.sampled_from(Rule)
_os, _jobs = st.sampled_from(["ask", "deny"]), st.sampled_from(["allow", "deny"])
_SETTINGS: dict[str, st.SearchStrategy[Any]] = {
    "diagnostics": _rule,
    "service": _rule,
    "os": _os,
    "jobs": _jobs,
    "approval_wait_s": st.integers(60, 600),
    "idle_s": st.integers(60, 3600),
    "renewal_s": st.integers(300, 1800),
    "in_use": st.sampled_from(["hold", "end"]),
    "sessions": st.integers(1, 4),
    "command_line_only": st.booleans(),
    "browser_os": st.booleans(),
    "four_eyes": st.booleans(),
    "ticket_h": st.integers(0, 8),
}
_hours = st.builds(
    Hours,
    days=st.lists(st.integers(1, 7), min_size=1, max_size=3),
    begins=st.integers(0, 1439),
    ends=st.integers(0, 1439),
    diagnostics=_rule,
    service=_rule,
    os=_os,
    jobs=_jobs,
)
policies = st.builds(
    SitePolicy,
    version=st.just(1),
    zone=st.sampled_from(["UTC", "America/Toronto"]),
    hours=st.lists(_hours, max_size=3),
    **_SETTINGS,
)
tightenings = st.builds(
    Tightening, **{name: st.none() | values for name, values in _SETTINGS.items()}
)


def allows(settings: Settings) -> set[tuple[str, Any]]:
    """Everything that these settings let somebody do, each by a name of its own."""
    found: set[tuple[str, Any]] = set()
    for level in Level:
        rule = settings.rule(level)
        if rule is not Rule.DENY:
            found.add(("asked", level))
        if rule is Rule.ALLOW:
            found.add(("unasked", level))
        found |= {("with", (kind, level)) for kind in ClientKind if settings.takes(kind, level)}
    if settings.jobs == "allow":
        found.add(("job", ""))
    if settings.in_use == "hold":
        found.add(("outlive use", ""))
    if not settings.four_eyes:
        found.add(("one approver", ""))
    found |= {("wait", s) for s in range(settings.approval_wait_s)}
    found |= {("idle", s) for s in range(settings.idle_s)}
    found |= {("unrenewed", s) for s in range(settings.renewal_s)}
    found |= {("session", n) for n in range(settings.sessions)}
    return found | {("ticket hour", h) for h in range(settings.ticket_h)}


@given(policy=policies, tightening=tightenings, minute=st.none() | st.integers(0, wire.WEEK - 1))
def test_a_tightening_allows_nothing_that_the_site_does_not(
    policy: SitePolicy, tightening: Tightening, minute: int | None
) -> None:
    site = policy.at(minute)
    joined = tightening.on(site)
    assert allows(joined) <= allows(site)
    for name in Settings.__struct_fields__:
        wanted = getattr(tightening, name)
        if wanted is not None:  # nor anything that the tightening does not
            alone = Settings(**{name: wanted})
            assert wire.stricter(joined, alone).__class__ is Settings
            assert getattr(wire.stricter(joined, alone), name) == getattr(joined, name)


@given(one=policies, other=policies, minute=st.integers(0, wire.WEEK - 1))
def test_the_stricter_of_two_allows_what_both_do_at_most(
    one: SitePolicy, other: SitePolicy, minute: int
) -> None:
    a, b = one.at(minute), other.at(minute)
    assert allows(wire.stricter(a, b)) <= allows(a) & allows(b)
    assert wire.stricter(a, b) == wire.stricter(b, a)


@given(old=policies, new=policies, minutes=st.lists(st.integers(0, wire.WEEK - 1), max_size=20))
def test_what_loosens_nothing_never_allows_more(
    old: SitePolicy, new: SitePolicy, minutes: list[int]
) -> None:
    """Whatever the zones: at no moment of the week."""
    if wire.loosened(old, new):
        return
    for minute in [*minutes, *old.turns(), *new.turns()]:
        assert allows(new.at(minute)) <= allows(old.at(minute))


@given(policy=policies, tightening=tightenings)
def test_a_policy_made_stricter_in_every_field_loosens_nothing(
    policy: SitePolicy, tightening: Tightening
) -> None:
    flat = SitePolicy(version=1, zone=policy.zone)
    stricter = tightening.on(wire.settings(policy))
    fields = {name: getattr(stricter, name) for name in Settings.__struct_fields__}
    assert wire.loosened(wire.settings(policy), SitePolicy(version=2, **fields)) == []
    assert wire.loosened(policy, policy) == []
    assert wire.loosened(flat, flat) == []


def test_what_is_loosened_is_named() -> None:
    new = SitePolicy(version=2, four_eyes=False, ticket_h=2, os="deny")
    assert wire.loosened(SitePolicy(version=1, four_eyes=True), new) == ["four_eyes", "ticket_h"]
    lunch = SitePolicy(
        version=2, service=Rule.ASK, hours=[Hours(days=[3], begins=720, ends=721)]
    )  # one minute a week
    assert wire.loosened(SitePolicy(version=1, service=Rule.ASK), lunch) == ["service"]


def test_two_zones_are_compared_at_their_worst() -> None:
    """What holds at noon in one place holds at another time in the other."""
    hours = [Hours(days=[1], begins=720, ends=780, service=Rule.DENY)]
    here = SitePolicy(version=1, zone="UTC", hours=hours)
    there = SitePolicy(version=2, zone="America/Toronto", hours=hours)
    assert wire.loosened(here, there) == ["service"]
    same = SitePolicy(version=2, zone="UTC", hours=hours)
    assert wire.loosened(here, same) == []


def test_a_fingerprint_is_of_the_key() -> None:
    assert wire.fingerprint(KEY) != wire.fingerprint(bytes(32))
    assert [len(part) for part in wire.fingerprint(KEY).split("-")] == [5] * 8
