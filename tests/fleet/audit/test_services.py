"""Recording in chains (R-ACC-10)."""

from datetime import datetime

import pytest
from django.db import transaction

from agent.wire import chain
from agent.wire.catalogue import Outcome
from fleet.accounts.models import Organisation, User
from fleet.audit import keys, services
from fleet.audit.models import Entry, HeadLink
from fleet.core import clock
from fleet.inventory.models import Device


def _record(organisation: Organisation, **fields: object) -> Entry:
    values = {"actor": "portal", "action": "access:request", "outcome": Outcome.ALLOWED, **fields}
    return services.record(organisation=organisation, **values)  # type: ignore[arg-type]


def test_chains_are_apart_and_the_heads_are_one_chain(
    hospital: Organisation, other_hospital: Organisation, owner: User, device: Device
) -> None:
    _record(hospital, actor=owner, device=device, session="0" * 32)
    _record(other_hospital)
    _record(hospital)
    own = [row.entry for row in Entry.objects.filter(organisation=hospital)]
    assert chain.verify(own) == (2, None)
    assert own[0]["actor"] == "owner"
    assert own[0]["device"] == device.pk
    links = [row.entry for row in HeadLink.objects.all()]
    assert chain.verify(links) == (3, None)
    assert [link["chain"] for link in links] == ["north", "sud", "north"]
    assert links[2]["chain_hash"] == own[1]["hash"]


def test_what_is_rolled_back_leaves_no_entry(hospital: Organisation) -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        _record(hospital)
        _ = 1 / 0
    assert not Entry.objects.exists()
    assert not HeadLink.objects.exists()


@pytest.mark.parametrize(
    "fields", [{"action": "Free text"}, {"action": "a:b"}, {"reason": "No. Because!"}]
)
def test_only_codes_are_recorded(hospital: Organisation, fields: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="not codes"):
        _record(hospital, **fields)


def test_the_head_is_signed_once_there_is_a_key_and_an_entry(hospital: Organisation) -> None:
    assert services.server_head(hospital.pk) is None
    keys.create()
    assert services.server_head(hospital.pk) is None
    entry = _record(hospital)
    head = services.server_head(hospital.pk)
    public = keys.server_public_key()
    assert head is not None
    assert public is not None
    assert (head.index, head.hash) == (0, entry.hash)
    assert chain.head_is_signed_by(head, public)


def test_the_key_is_made_once_and_for_us_alone() -> None:
    keys.create()
    first = keys.key_path().read_bytes()
    keys.create()
    assert keys.key_path().read_bytes() == first
    assert keys.key_path().stat().st_mode & 0o777 == 0o600


# --- refusals, bounded --------------------------------------------------------------------------


def _refuse(organisation: Organisation, now: datetime, actor: str = "one") -> Entry | None:
    return services.record_refusal(
        organisation=organisation, actor=actor, action="account:sign_in", reason="wrong_password",
        now=now,
    )  # fmt: skip


def test_refusals_cannot_fill_the_disk(
    hospital: Organisation, other_hospital: Organisation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """THREATS: by one actor, and by many in one chain; the rest of the record goes on."""
    monkeypatch.setattr(services, "MAX_REFUSALS_OF_ONE", 3)
    monkeypatch.setattr(services, "MAX_REFUSALS", 5)
    now = clock.now()
    made = [_refuse(hospital, now) for _time in range(5)]
    assert [entry is not None for entry in made] == [True] * 3 + [False] * 2
    made = [_refuse(hospital, now, actor=f"n{number}") for number in range(4)]
    assert [entry is not None for entry in made] == [True] * 2 + [False] * 2
    assert _refuse(other_hospital, now) is not None
    _record(hospital)
    assert chain.verify([row.entry for row in Entry.objects.filter(organisation=hospital)]) == (
        6, None,
    )  # fmt: skip
    assert _refuse(hospital, now + services.REFUSALS_WITHIN) is not None


def test_only_what_is_bounded_is_recorded_as_a_refusal(hospital: Organisation) -> None:
    with pytest.raises(ValueError, match="not bounded"):
        services.record_refusal(
            organisation=hospital, actor="x", action="job:create", reason="y", now=clock.now()
        )
