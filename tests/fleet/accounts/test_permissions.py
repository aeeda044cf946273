"""Role x organisation x action, at the one door."""

import pytest
from django.contrib.auth.models import AnonymousUser

from fleet.accounts.models import User
from fleet.accounts.permissions import ROLE_ACTIONS, Action, allowed, require, restrict
from fleet.core.errors import NotAllowed
from fleet.inventory.models import Device


def _sees(user: object, action: Action = Action.DEVICE_VIEW) -> set[str]:
    return set(restrict(Device.objects.all(), user, action).values_list("pk", flat=True))


def test_who_sees_which_devices(
    administrator: User, owner: User, member: User, stranger: User,
    device: Device, other_device: Device,
) -> None:  # fmt: skip
    both = {device.pk, other_device.pk}
    assert _sees(administrator) == _sees(owner) == both
    assert _sees(member) == {device.pk}
    assert _sees(stranger) == {other_device.pk}
    assert _sees(AnonymousUser()) == set()
    assert _sees(None) == set()


def test_a_closed_account_sees_nothing(owner: User, device: Device) -> None:
    owner.is_active = False
    assert _sees(owner) == set()


def test_a_role_without_the_action_sees_nothing(member: User, owner: User, device: Device) -> None:
    assert _sees(member, Action.BUNDLE_DOWNLOAD) == set()
    assert _sees(owner, Action.AUDIT_VERIFY) == set()
    with pytest.raises(NotAllowed):
        require(member, Action.ACCESS_REQUEST)
    assert require(owner, Action.ACCESS_REQUEST) is owner


def test_a_specialist_of_a_hospital_stays_at_home(
    member: User, device: Device, other_device: Device
) -> None:
    """Role does not widen scope: only people of the vendor act everywhere."""
    member.role = "specialist"
    assert _sees(member) == {device.pk}


def test_only_who_asked_answers() -> None:
    can = {role for role, actions in ROLE_ACTIONS.items() if Action.ACCESS_ANSWER in actions}
    assert can == {"specialist"}


def test_staff_flags_change_nothing(stranger: User, device: Device) -> None:
    stranger.is_superuser = stranger.is_staff = True
    assert _sees(stranger) == set()
    assert not allowed(stranger, Action.DEVICE_ENROL)
