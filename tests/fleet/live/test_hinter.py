"""Hints reach the channel layer from any thread, and never hold anybody up."""

import asyncio
import threading
from typing import Any

import pytest
from channels.layers import InMemoryChannelLayer

from fleet.live import hinter as module
from fleet.live.hinter import Hinter


@pytest.fixture
def layer(monkeypatch: pytest.MonkeyPatch) -> InMemoryChannelLayer:
    made = InMemoryChannelLayer(capacity=5000)
    monkeypatch.setattr(module, "get_channel_layer", lambda: made)
    return made


async def test_from_another_thread(layer: InMemoryChannelLayer) -> None:
    hinter = Hinter()
    hinter.bind(asyncio.get_running_loop())
    await layer.group_add("device.abc", "me")
    payload: dict[str, Any] = {"kind": "presence", "online": True}
    thread = threading.Thread(target=hinter, args=("device.abc", payload))
    thread.start()
    message = await asyncio.wait_for(layer.receive("me"), 5)
    thread.join()
    assert message == {"type": "hint", "group": "device.abc", "payload": payload}


async def test_from_the_loop_itself(layer: InMemoryChannelLayer) -> None:
    hinter = Hinter()
    hinter.bind(asyncio.get_running_loop())
    await layer.group_add("fleet", "me")
    hinter("fleet", {"kind": "state"})
    assert (await asyncio.wait_for(layer.receive("me"), 5))["payload"] == {"kind": "state"}


def test_with_nobody_there_it_drops() -> None:
    hinter = Hinter()
    hinter("fleet", {"kind": "state"})
    loop = asyncio.new_event_loop()
    hinter.bind(loop)
    loop.close()
    hinter("fleet", {"kind": "state"})


async def test_it_is_bounded(layer: InMemoryChannelLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PENDING", 3)
    hinter = Hinter()
    hinter.bind(asyncio.get_running_loop())
    await layer.group_add("fleet", "me")
    for number in range(10):
        hinter("fleet", {"kind": "state", "number": number})
    got = [(await asyncio.wait_for(layer.receive("me"), 5))["payload"]["number"] for _ in range(3)]
    assert got == [0, 1, 2]
    await asyncio.sleep(0.01)
    hinter("fleet", {"kind": "state", "number": 11})
    assert (await asyncio.wait_for(layer.receive("me"), 5))["payload"]["number"] == 11


async def test_a_group_that_nobody_can_watch_is_a_fault_of_ours(
    layer: InMemoryChannelLayer, caplog: pytest.LogCaptureFixture
) -> None:
    hinter = Hinter()
    hinter.bind(asyncio.get_running_loop())
    hinter("nonsense.x", {"kind": "state"})
    assert "nobody can watch" in caplog.text
