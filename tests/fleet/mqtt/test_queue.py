"""The bounded queue between the loop and the writer."""

from fleet.core import clock
from fleet.mqtt.queue import IngestQueue, Item


def _item(size: int = 10) -> Item:
    return Item("device-0001", "event", 1, bytes(size), clock.now())


def test_full_in_messages_then_room_at_half() -> None:
    queue = IngestQueue(depth=4)
    assert all(queue.offer(_item()) for _ in range(4))
    assert not queue.offer(_item())
    load, room = queue.take(1, 0)
    assert (len(load.items), room) == (1, False)
    assert queue.offer(_item())  # there is a place, although nobody was called yet
    load, room = queue.take(3, 0)
    assert (len(load.items), room) == (3, True)
    assert queue.take(3, 0)[1] is False  # said once


def test_full_in_bytes() -> None:
    queue = IngestQueue(most_bytes=100)
    assert queue.offer(_item(60))
    assert not queue.offer(_item(60))
    queue.take(10, 0)
    assert queue.offer(_item(60))


def test_work_goes_first_and_the_newest_of_a_name_replaces_the_rest() -> None:
    queue = IngestQueue()
    done: list[str] = []
    queue.offer(_item())
    queue.submit("presence a", lambda: done.append("on"))
    queue.submit("presence b", lambda: done.append("b"))
    queue.submit("presence a", lambda: done.append("off"))
    load, _room = queue.take(10, 0)
    for work in load.work:
        work()
    assert done == ["b", "off"]
    assert len(load.items) == 1


def test_closed_takes_nothing_and_wakes_the_writer() -> None:
    queue = IngestQueue()
    queue.offer(_item())
    queue.close()
    assert not queue.offer(_item())
    queue.submit("late", lambda: None)
    load, _room = queue.take(10, 30)
    assert not load.items
    assert not load.work
