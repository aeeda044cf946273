"""Debian's mosquitto_sub in the portal's place on a link: what we call MQTT 3.1.1 there is.

With the portal's certificate it gets snapshot, presence and messages, and its PUBACK is what a
device gets; with a device's certificate it gets nothing. Requirements: R-CON-5, R-CON-6.
"""

import asyncio
import json
from pathlib import Path

import pytest

from tests.broker import raw
from tests.broker.conftest import A
from tests.broker.linked import Linked
from tests.broker.raw import Raw
from tests.tls import Authority, Issued, LinkAuthority

pytestmark = [pytest.mark.system, pytest.mark.timeout(60)]

EVENT = f"pat/1/{A}/up/event/1"


async def _subscribe(east: Linked, identity: Issued, folder: Path) -> asyncio.subprocess.Process:
    certificate, key = identity.write(folder, "shown")
    return await asyncio.create_subprocess_exec(
        "mosquitto_sub", "-h", "127.0.0.1", "-p", str(east.uplink.port), "-V", "mqttv311",
        "-i", "portal", "-q", "1", "-k", "10", "-t", "pat/1/+/up/#", "-t", "link/1/#",
        "--cafile", str(folder / "link-ca.pem"), "--cert", str(certificate), "--key", str(key),
        "--insecure", "--tls-alpn", "mqtt", "-F", "%t %q %p",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def test_in_the_portals_place(tmp_path: Path) -> None:
    authority, links = Authority(), LinkAuthority()
    east = Linked(authority.write(tmp_path), links, tmp_path / "east")
    await east.start()
    try:
        portal = await _subscribe(east, links.portal(), east.folder)
        assert portal.stdout is not None
        async with asyncio.timeout(20):
            topic, _qos, snapshot = (await portal.stdout.readline()).decode().split(" ", 2)
            assert topic == "link/1/snapshot"
            assert json.loads(snapshot) == {"devices": [], "last": True}
            device = await Raw.open(east.gate.port, authority, authority.device(A))
            async with await device.live(A):
                topic, _qos, presence = (await portal.stdout.readline()).decode().split(" ", 2)
                assert topic == "link/1/connected"
                assert json.loads(presence)["device"] == A
                device.send(raw.publish(EVENT, b"{}", first=0x32, id=7))
                assert (await portal.stdout.readline()).decode() == f"{EVENT} 1 {{}}\n"
                assert await device.packet() == (0x40, b"\0\x07")
        portal.terminate()
        await portal.communicate()
    finally:
        await east.stop()


async def test_with_a_devices_certificate(tmp_path: Path) -> None:
    authority, links = Authority(), LinkAuthority()
    east = Linked(authority.write(tmp_path), links, tmp_path / "east")
    await east.start()
    try:
        stranger = await _subscribe(east, authority.device(A), east.folder)
        async with asyncio.timeout(20):
            said, complaint = await stranger.communicate()
        assert said == b""
        assert stranger.returncode != 0, complaint
        assert not east.uplink.linked
    finally:
        await east.stop()
