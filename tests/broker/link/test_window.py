"""What the portal has not decided on: bounded, in order, one message an id.

Requirements: R-CON-5.
"""

import random

import pytest

from broker.lanes import Delivery
from broker.link.window import Window


def delivery(device: str = "device-aaaa", payload: bytes = b"x") -> Delivery:
    return Delivery(device, "event", 1, payload, 1)


def held(window: Window) -> list[int]:
    return [number for number, _delivery, _again in window.send()]


def test_bounded_in_messages_and_in_bytes() -> None:
    window = Window(messages=3, most_bytes=10)
    assert [window.add(delivery(), sent=True) for _ in range(4)] == [1, 2, 3, None]
    assert not window.roomy
    window.decided(2)
    assert window.add(delivery(payload=b"x" * 9), sent=True) is None
    assert window.add(delivery(payload=b"x" * 8), sent=True) == 4
    assert (len(window), window.bytes) == (3, 10)
    large = Window(messages=3, most_bytes=10)
    assert large.add(delivery(payload=b"x" * 11), sent=True) == 1  # alone, it must pass
    with pytest.raises(ValueError, match="65535"):
        Window(messages=65_535, most_bytes=1)


def test_sent_again_in_order_on_the_next_link() -> None:
    window = Window(messages=9, most_bytes=100)
    for number in range(4):
        window.add(delivery(payload=b"%d" % number), sent=number < 3)
    assert window.decided(4) is None  # never sent: nothing to decide on
    assert window.decided(1) is not None
    window.broken()
    assert window.decided(2) is None  # an answer of the last link
    assert [(n, d.payload, again) for n, d, again in window.send()] == [
        (2, b"1", True), (3, b"2", True), (4, b"3", False),
    ]  # fmt: skip
    assert window.decided(4) is not None


def test_a_device_that_left_is_forgotten_once_its_ids_are_free() -> None:
    window = Window(messages=9, most_bytes=100)
    window.add(delivery("device-aaaa"), sent=True)
    window.add(delivery("device-bbbb"), sent=True)
    window.add(delivery("device-aaaa"), sent=False)
    window.left("device-aaaa")
    assert len(window) == 2  # what is on its way keeps its id
    window.broken()
    assert held(window) == [2]
    assert window.bytes == 1


@pytest.mark.parametrize("seed", range(10))
def test_no_id_is_two_messages_and_no_message_is_forgotten(seed: int) -> None:
    chance = random.Random(seed)
    window = Window(messages=50, most_bytes=400)
    expected: dict[int, Delivery] = {}
    for _ in range(140_000 // 10):
        step = chance.random()
        if step < 0.55:
            one = delivery(payload=b"x" * chance.randint(1, 20))
            number = window.add(one, sent=True)
            assert number is None or number not in expected
            if number is not None:
                expected[number] = one
        elif step < 0.99 and expected:
            number = chance.choice(list(expected))
            assert window.decided(number) is expected.pop(number)
        elif step >= 0.99:
            window.broken()
            assert [n for n, _d, _again in window.send()] == list(expected)
        assert len(window) == len(expected) <= 50
        assert window.bytes == sum(len(each.payload) for each in expected.values()) <= 400


def test_ids_begin_again_and_skip_those_in_use() -> None:
    window = Window(messages=2, most_bytes=100)
    assert window.add(delivery(), sent=True) == 1
    for _ in range(65_534):
        number = window.add(delivery(), sent=True)
        assert number is not None
        window.decided(number)
    assert window.add(delivery(), sent=True) == 2  # 1 is still on its way
