"""Names of what may be watched."""

import pytest
from channels.layers import InMemoryChannelLayer
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.live.groups import Group, Kind, parse


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("fleet", Group(Kind.FLEET)),
        ("device.abc-DEF_1", Group(Kind.DEVICE, "abc-DEF_1")),
        ("session." + "0f" * 16, Group(Kind.SESSION, "0f" * 16)),
        ("organisation.north", Group(Kind.ORGANISATION, "north")),
    ],
)
def test_ours(name: str, group: Group) -> None:
    assert parse(name) == group
    assert str(group) == name


@pytest.mark.parametrize(
    "name",
    ["", "device", "device.", "fleet.x", "other.x", "device.a.b", "device.é", "device.a!b",
     "device." + "x" * 65, "device.a\n", None, 7, ["fleet"], {"a": 1}],
)  # fmt: skip
def test_not_ours(name: object) -> None:
    assert parse(name) is None


@given(st.text(max_size=80))
@settings(max_examples=100)
def test_whatever_is_read_is_a_legal_name_of_a_channel_group(text: str) -> None:
    for name in (text, f"device.{text}"):
        group = parse(name)
        if group is not None:
            assert str(group) == name
            assert InMemoryChannelLayer().require_valid_group_name(str(group))
