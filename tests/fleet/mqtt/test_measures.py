"""The metrics that the portal and an access server show, where, and to whom.

Requirements: R-CON-5, R-PRV-1, R-PRV-2.
"""

import re
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.test import Client

from fleet.core.errors import Invalid
from fleet.mqtt.options import ServeOptions, metrics_address
from fleet.servers.models import AccessServer as Row
from tests.broker.raw import publish
from tests.demo import free_port
from tests.fleet.mqtt import test_server
from tests.fleet.mqtt.test_links import _linked, _live, make
from tests.fleet.mqtt.test_links import _process as _process
from tests.fleet.mqtt.test_links import enrolled as enrolled
from tests.fleet.mqtt.test_server import Address, in_thread, serving, trusting, until
from tests.fleet.mqtt.wire import Sender

assert make  # a fixture

pytestmark = pytest.mark.django_db(transaction=True)

PAGE = Path(__file__).parents[3] / "docs/metrics.md"
_FAMILY = re.compile(r"^# TYPE (patency_\w+) (\w+)$", re.M)


def _documented() -> set[str]:
    return set(re.findall(r"`(patency_\w+)`", PAGE.read_text(encoding="utf-8")))


def _families(text: str) -> set[str]:
    """Without the ends that the text format adds to counters."""
    found = {(name, kind) for name, kind in _FAMILY.findall(text) if not name.endswith("_created")}
    return {name.removesuffix("_total") if kind == "counter" else name for name, kind in found}


async def _read(port: int) -> str:
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"http://127.0.0.1:{port}/metrics")
    assert answer.status_code == 200
    return answer.text


async def test_every_name_is_documented_and_none_identifies_anybody(
    make: Any, enrolled: tuple[str, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device on an access server: both processes are asked while it is on line."""
    device, context = enrolled
    here, there = free_port(), free_port()
    options = ServeOptions(
        http=Address("127.0.0.1", 0), mqtt=Address("127.0.0.1", 0),
        metrics=Address("127.0.0.1", here),
    )  # fmt: skip
    monkeypatch.setattr(test_server, "OPTIONS", options)
    east = await in_thread(lambda: make("east"))
    east.more = ("--metrics", f"127.0.0.1:{there}")
    await in_thread(east.start)
    async with serving() as running:
        await until(_linked("east"), 10)
        async with await _live(east, device, context) as raw:
            for number in (1, 2):
                payload = Sender(device).event(seq=number).payload
                topic = f"pat/1/{device}/up/event/1"
                raw.send(publish(topic, payload, first=0x32, id=number))
                await raw.packet()
            await until(lambda: Row.objects.get(pk="east").devices == 1, 5)
            ours, theirs = await _read(here), await _read(there)
            on_page = await _read(running.web.servers[0].sockets[0].getsockname()[1])
    assert 'patency_link_devices{server="east"} 1.0' in ours
    assert 'patency_link_up{server="east"} 1.0' in on_page
    assert 'patency_messages_decided_total{outcome="applied",type="event"}' in ours
    for line in (
        "patency_gate_devices 1.0", 'patency_gate_messages_total{direction="up"} 2.0',
        "patency_uplink_up 1.0", 'patency_certificate_end_seconds{certificate="link"}',
        "process_cpu_seconds_total",
    ):  # fmt: skip
        assert line in theirs
    assert _families(ours) | _families(theirs) == _documented()
    for text in (ours, theirs, on_page):
        for secret in (device, "SN-NEW", "North Hospital", "127.0.0.1"):
            assert secret not in text


async def test_at_the_gates_port_there_are_none(tmp_path: Path) -> None:
    """It is open to the internet."""
    async with serving() as running:
        url = f"https://localhost:{running.gate.port}/metrics"
        async with httpx.AsyncClient(verify=trusting(), trust_env=False) as client:
            answer = await client.get(url)
        assert answer.status_code == 404
        assert "patency_" not in answer.text


@pytest.mark.parametrize(
    "how",
    [
        {"REMOTE_ADDR": "192.0.2.9"},
        {"REMOTE_ADDR": ""},
        {"HTTP_X_FORWARDED_FOR": "127.0.0.1"},
        {"HTTP_FORWARDED": "for=127.0.0.1"},
        {"HTTP_VIA": "1.1 proxy"},
        {"HTTP_X_REAL_IP": "127.0.0.1"},
        {"wsgi.url_scheme": "https"},
    ],
)
def test_to_others_they_are_not_there(how: dict[str, str]) -> None:
    answer = Client().get("/metrics", **how)  # type: ignore[arg-type]
    assert answer.status_code == 404
    assert "patency_" not in answer.content.decode()
    assert Client().get("/metrics", REMOTE_ADDR="::1").status_code == 200


@pytest.mark.parametrize("address", ["0.0.0.0:9464", "[::]:9464", "*:9464"])
def test_an_address_for_everybody_is_refused(address: str, settings: Any) -> None:
    settings.PATENCY_METRICS = address
    with pytest.raises(Invalid, match=r"127\.0\.0\.1:9464"):
        metrics_address()


def test_they_are_off_unless_asked_for(settings: Any) -> None:
    assert settings.PATENCY_METRICS == ""
    assert metrics_address() is None
    settings.PATENCY_METRICS = "10.0.0.5:9464"
    assert str(metrics_address()) == "10.0.0.5:9464"
