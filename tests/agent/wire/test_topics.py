"""The access rule: own `up/` to publish, own `dn/` to subscribe, and nothing else (R-CON-6)."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.wire import topics
from tests.scale import scaled

DEVICE = "dev_Alpha-01"
OTHER = "dev_Bravo-02"

_device_ids = st.from_regex(topics.DEVICE_ID, fullmatch=True)
_types = st.from_regex(r"[a-z][a-z0-9-]{1,31}", fullmatch=True)


@given(_device_ids, _types, st.integers(1, 9999))
@settings(max_examples=50)
def test_what_is_built_reads_back(device: str, type: str, version: int) -> None:
    for text, direction in (
        (topics.up(device, type, version), topics.Direction.UP),
        (topics.down(device, type, version), topics.Direction.DOWN),
    ):
        topic = topics.parse(text)
        assert topic == topics.Topic(device, direction, type, version)
        assert str(topic) == text
    for text in (topics.up_stream(device), topics.down_stream(device)):
        topic = topics.parse(text)
        assert topic is not None
        assert (topic.type, topic.version, str(topic)) == ("s", 0, text)


@given(st.text(max_size=80))
@settings(max_examples=200)
def test_any_text_is_read_or_refused(text: str) -> None:
    topic = topics.parse(text)
    assert topic is None or str(topic) == text


def test_near_misses_are_no_topics() -> None:
    good = topics.up(DEVICE, "event", 1)
    assert topics.parse(good)
    for bad in (
        good + "\n",
        good + "/",
        "/" + good,
        good.replace("pat/1", "pat/2"),
        good.replace("/up/", "/down/"),
        good.replace("/event/", "/Event/"),
        topics.up(DEVICE, "event", 0),
        f"pat/1/{DEVICE}/up/event/01",
        f"pat/1/{DEVICE}/up/event/١",
        f"pat/1/{DEVICE}/up/event/10000",
        f"pat/1/{DEVICE}/up/s/1",
        f"pat/1/{DEVICE}.x/up/s",
        "pat/1/short/up/s",
        f"pat/1/{'x' * 65}/up/s",
    ):
        assert topics.parse(bad) is None, bad


def test_a_device_may_use_its_own_side_only() -> None:
    assert topics.may_publish(DEVICE, topics.up(DEVICE, "event", 1))
    assert topics.may_publish(DEVICE, topics.up_stream(DEVICE))
    assert topics.may_subscribe(DEVICE, topics.down_filter(DEVICE))
    assert topics.may_subscribe(DEVICE, topics.down(DEVICE, "job", 1))
    assert topics.may_subscribe(DEVICE, topics.down_stream(DEVICE))
    for refused in (topics.down(DEVICE, "job", 1), topics.up(OTHER, "event", 1), "$SYS/x"):
        assert not topics.may_publish(DEVICE, refused)
    for refused in (
        "#", "+/x", "$SYS/#", f"$share/g/pat/1/{DEVICE}/dn/#", topics.down_filter(OTHER),
        f"pat/1/{DEVICE}/#", f"pat/1/{DEVICE}/+/job/1", f"pat/1/{DEVICE}/up/#",
        f"pat/1/{DEVICE}/dn/+/1", f"pat/1/{DEVICE}/dn/job/#", f"pat/1/{DEVICE}/dn/#\n",
    ):  # fmt: skip
        assert not topics.may_subscribe(DEVICE, refused), refused
    assert not topics.may_subscribe("#", "pat/1/#/dn/#")


def _matches(pattern: str, topic: str) -> bool:
    """MQTT 3.1.1 clause 4.7, written here on its own, to judge the rule by what brokers do."""
    if topic.startswith("$") and pattern[:1] in ("#", "+"):
        return False
    left, right = pattern.split("/"), topic.split("/")
    for index, level in enumerate(left):
        if level == "#":
            return index == len(left) - 1
        if index >= len(right) or level not in ("+", right[index]):
            return False
    return len(left) == len(right)


_FOREIGN = (
    topics.up(DEVICE, "event", 1), topics.up_stream(DEVICE), topics.down(OTHER, "job", 1),
    topics.down_stream(OTHER), topics.up(OTHER, "hello", 1), "$SYS/broker/uptime", "anything",
    f"pat/1/{DEVICE}", "pat/1",
)  # fmt: skip
_LEVELS = (
    "pat", "1", "2", DEVICE, OTHER, "up", "dn", "s", "job", "event", "#", "+", "$SYS", "$share",
    "g", "", "*", "..", "%2f", "dn#", "+dn", DEVICE + "+", "\x00", "é", " ",
)  # fmt: skip


def test_no_generated_filter_reaches_beyond_the_grant() -> None:
    """10^6 filters at full scale: none that is accepted can match what is not the device's."""
    pick = random.Random(3110)
    accepted = 0
    for _ in range(scaled(1_000_000)):
        if pick.random() < 0.5:
            levels = ["pat", "1", DEVICE, "dn", "job", "1"][: pick.randint(1, 6)]
            for _ in range(pick.randint(1, 2)):
                levels.insert(pick.randint(0, len(levels)), pick.choice(_LEVELS))
            if pick.random() < 0.5:
                levels.pop(pick.randrange(len(levels)))
        else:
            levels = pick.choices(_LEVELS, k=pick.randint(1, 8))
        text = "/".join(levels)
        if topics.may_subscribe(DEVICE, text):
            accepted += 1
            assert text.startswith(f"pat/1/{DEVICE}/dn/")
            assert not any(_matches(text, foreign) for foreign in _FOREIGN), text
        if topics.may_publish(DEVICE, text):
            assert text.startswith(f"pat/1/{DEVICE}/up/")
            assert "#" not in text
            assert "+" not in text
    assert accepted  # the generator does reach the rule's other side
