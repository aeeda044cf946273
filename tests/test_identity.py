"""A credential's life with everything real: portal, gate, TLS, enrolment, agents, both databases.

"Identity and enrolment" of the threats, and "revoke a live device" (R-CON-6, R-CON-8, R-CON-9).
"""

import asyncio
import json
import shutil
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from django.test import Client

from agent import enrolment
from agent.doctor.examination import examine
from agent.wire.catalogue import EVENT_PRIORITY, EventCode, EventPhase
from agent.wire.messages import Event as DeviceEvent
from fleet.accounts.models import User
from fleet.audit import verification
from fleet.audit.models import DeviceEntry, Entry
from fleet.core import clock
from fleet.core.errors import Conflict
from fleet.enrolment import ca, ceremony, credentials, selectors, services
from fleet.enrolment.models import Alarm, AlarmKind, Credential, Issued
from fleet.inventory import departures, placing
from fleet.inventory.models import Device, Site
from fleet.telemetry.models import Condition, Event
from tests.broker import raw
from tests.broker.raw import Raw
from tests.fleet.mqtt.test_server import in_thread, trusting, until
from tests.mfa import open_session
from tests.scale import scaled
from tests.test_refusals import Make
from tests.test_refusals import make as make
from tests.whole import PIN, WITHIN_S, Injector, Whole

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
async def here(make: Make) -> AsyncIterator[Whole]:
    async with make() as made:
        yield made


@dataclass
class Copy:
    """A copy of an injector's disk as it is now: certificate, key and all."""

    folder: Path
    device: str

    @classmethod
    def of(cls, injector: Injector, to: Path) -> "Copy":
        to.mkdir(mode=0o700)
        for path in injector.state.iterdir():
            if path.is_file() and path.suffix in (".json", ".pem", ".key"):
                shutil.copy2(path, to / path.name)
        return cls(to, injector.id)

    def context(self) -> ssl.SSLContext:
        context = trusting()
        context.set_alpn_protocols(["mqtt"])
        context.load_cert_chain(self.folder / "device.pem", self.folder / "device.key")
        return context

    async def opened(self, here: Whole) -> Raw:
        port = here.running.gate.port
        return await Raw.open(port, None, None, context=self.context())  # type: ignore[arg-type]

    async def gets_in(self, here: Whole) -> bool:
        """Whether a raw client with this copy gets a CONNACK."""
        try:
            client = await self.opened(here)
        except OSError:
            return False
        async with client:
            client.send(raw.connect(self.device))
            try:
                return await client.packet() == (0x20, b"\0\0")
            except (OSError, EOFError):
                return False


def _online(device: str) -> bool:
    return Device.objects.get(pk=device).online


def _report(injector: Injector) -> None:
    code = EventCode.FLOW_LIMITED
    injector.agent.emit(
        DeviceEvent, code=code, priority=EVENT_PRIORITY[code], phase=EventPhase.RAISED
    )


async def test_a_credential_is_renewed_and_the_old_one_has_had_its_day(
    here: Whole, tmp_path: Path
) -> None:
    """R-CON-8: at half-life, over the session, with another key; nothing is lost on the way."""
    injector = here.first
    old = Copy.of(injector, tmp_path / "old")
    before = injector.agent.identity
    renewed = Credential.objects.filter(issued=Issued.RENEWAL, used_at__isnull=False)
    injector.days = 17
    reported = 0
    while not await in_thread(renewed.all().exists):  # across the change, and a little beyond
        _report(injector)
        reported += 1
        await asyncio.sleep(0.05)
        assert reported < WITHIN_S / 0.05
    _report(injector)
    injector.days = 0
    after = injector.agent.identity
    assert after.key.public_key() != before.key.public_key()
    assert after.device == before.device
    events = Event.objects.filter(device=injector.id, code=EventCode.FLOW_LIMITED)
    await until(lambda: events.all().count() == reported + 1, WITHIN_S)
    for _ in range(scaled(20, at_least=3)):
        assert not await old.gets_in(here)
    await until(lambda: Alarm.objects.filter(kind=AlarmKind.SUPERSEDED).exists(), WITHIN_S)
    assert await in_thread(lambda: _online(injector.id))
    assert await Copy.of(injector, tmp_path / "new").gets_in(here)


async def test_a_live_device_is_revoked(here: Whole, tmp_path: Path, administrator: User) -> None:
    """THREATS, gate: cut within 2 s, and 0 of 100 reconnects succeed."""
    injector = here.first
    copy = Copy.of(injector, tmp_path / "copy")

    def revoke() -> None:
        device = Device.objects.get(pk=injector.id)
        credentials.revoke(actor=administrator, device=device, now=clock.now())

    gate = here.running.gate
    assert injector.id in gate.connections
    await in_thread(revoke)
    started = time.monotonic()
    while injector.id in gate.connections:
        await asyncio.sleep(0.005)
        assert time.monotonic() - started < 2
    await until(lambda: not _online(injector.id), WITHIN_S)
    succeeded = 0
    for _ in range(scaled(100)):
        succeeded += await copy.gets_in(here)
    assert succeeded == 0
    assert not injector.agent.online
    # R-CON-7: the gate says nothing, and the injector finds out all the same whose doing it is.
    await until(lambda: injector.agent.status()["finding"] == "own_revoked", 40)
    found = await asyncio.to_thread(examine, injector.state)
    assert "own_revoked" in [check.shown.code for check in found.checks]
    denied = Entry.objects.filter(device=injector.id, action="gate:refused")
    await until(lambda: any(e.entry["reason"] == "denied" for e in denied.all()), WITHIN_S)
    assert not await in_thread(Alarm.objects.exists)  # it knocks, and that is no theft


async def test_what_the_gate_refuses_stands_in_the_audit(here: Whole, tmp_path: Path) -> None:
    """THREATS, gate: refused and audited, under the device that tried it."""
    copy = Copy.of(here.first, tmp_path / "copy")
    tries = {
        "filter": raw.connect(copy.device) + raw.subscribe("#", "$SYS/#"),
        "topic": raw.connect(copy.device) + raw.publish("pat/1/device-bbbb/up/event/1"),
        "retained": raw.connect(copy.device) + raw.publish("x", first=0x31),
        "will": raw.connect(copy.device, flags=0x04, tail=raw.text("x") + raw.text("x")),
        "client_id": raw.connect("device-bbbb"),
    }
    for sent in tries.values():
        async with await copy.opened(here) as client:
            client.send(sent + raw.DISCONNECT)
            await client.ended()

    def told() -> set[str]:
        rows = Entry.objects.filter(device=copy.device, action="gate:refused")
        return {row.entry["reason"] for row in rows if row.entry["outcome"] == "refused"}

    await until(lambda: told() == set(tries), WITHIN_S)


@asynccontextmanager
async def _cloned(here: Whole, folder: Path) -> AsyncIterator[Injector]:
    """The same credential on another machine, with our own agent."""
    copy = Copy.of(here.first, folder)
    clone = Injector(copy.folder, boot="c" * 32, timing=None)
    task = asyncio.create_task(clone.agent.run())
    try:
        yield clone
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_credential_in_two_places_raises_an_alarm(here: Whole, tmp_path: Path) -> None:
    """THREATS, identity: alarm within a minute, audited, and shown where people look."""
    started = time.monotonic()
    async with _cloned(here, tmp_path / "clone"):
        await until(lambda: Alarm.objects.filter(kind=AlarmKind.CLONED).exists(), 60)
    assert time.monotonic() - started < 60
    entry = await in_thread(lambda: Entry.objects.get(action="credential:alarm"))
    assert (entry.entry["reason"], entry.device) == ("cloned", here.first.id)


async def test_a_thief_with_a_client_of_his_own_raises_an_alarm(
    here: Whole, tmp_path: Path
) -> None:
    """He says no hello; that two connections throw each other out is enough."""
    copy = Copy.of(here.first, tmp_path / "copy")

    async def stay() -> None:
        while True:
            async with await copy.opened(here) as client:
                client.send(raw.connect(copy.device))
                await client.ended(60)  # until the injector comes back
            await asyncio.sleep(0.1)

    thief = asyncio.create_task(stay())
    try:
        await until(lambda: Alarm.objects.filter(kind=AlarmKind.CLONED).exists(), 60)
    finally:
        thief.cancel()
        await asyncio.gather(thief, return_exceptions=True)


async def test_switched_off_at_the_panel_it_stays_off(
    here: Whole, owner: User, member: User
) -> None:
    """R-CON-9: goodbye, so that the portal says why; nothing the portal does brings it back; only
    a PIN at the injector does."""
    injector = here.first
    await injector.command("remote-off")
    await until(lambda: not _online(injector.id), WITHIN_S)
    device = await in_thread(lambda: Device.objects.get(pk=injector.id))
    assert not device.remote_enabled
    actions = [e.action for e in await in_thread(lambda: list(Entry.objects.all()))]
    assert "remote:off" in actions

    def look() -> str:
        client = Client()
        open_session(client, member)
        return client.get(f"/devices/{device.pk}/").content.decode()

    page = await in_thread(look)
    assert "Switched off at the injector" in page
    with pytest.raises(Conflict, match="switched off"):
        await here.ask(injector, level="service", services=["web"])
    assert here.running.gate.connections == frozenset()
    await asyncio.sleep(1.5)  # the back-off would have been over
    assert not injector.agent.online
    await injector.command("remote-on", pin=PIN)
    await until(lambda: _online(injector.id), WITHIN_S)
    await until(lambda: Device.objects.get(pk=injector.id).remote_enabled, WITHIN_S)


async def test_revoked_and_back_with_a_new_claim(
    here: Whole, tmp_path: Path, administrator: User
) -> None:
    """The path back that needs a person: a new bundle, and one command at the injector."""
    injector = here.first

    def again() -> dict[str, object]:
        device = Device.objects.get(pk=injector.id)
        credentials.revoke(actor=administrator, device=device, now=clock.now())
        claim = services.create_claim_again(device=device, now=clock.now())
        return selectors.provisioning_bundle(
            serial=device.serial,
            product_line=device.product_line_id,
            claim=claim,
            trust_key=injector.agent.identity.provision.anchors.trust_key,
        )

    bundle = await in_thread(again)
    (injector.state / "provision.json").write_text(json.dumps(bundle))
    new = await enrolment.enrol_again(injector.state)
    assert new.device == injector.id
    assert new.key.public_key() != injector.agent.identity.key.public_key()
    copy = Copy.of(injector, tmp_path / "copy")
    assert await copy.gets_in(here)


async def test_transferred_with_rows_in_its_outbox(
    here: Whole, monkeypatch: pytest.MonkeyPatch, administrator: User, other_site: Site
) -> None:
    """R-CON-9: what it recorded at its former owner's and could not send, it sends from the new
    one's. Each owner gets its own, by a clock that is a month wrong."""
    monkeypatch.setattr(placing, "SLACK", timedelta(seconds=0.2))
    injector = here.first

    def cut_off() -> Device:
        device = Device.objects.get(pk=injector.id)
        credentials.revoke(actor=administrator, device=device, now=clock.now())
        return device

    device = await in_thread(cut_off)
    await until(lambda: not _online(injector.id), WITHIN_S)
    injector.days = -31
    for _ in range(3):
        _report(injector)
    await asyncio.sleep(0.6)

    def move() -> dict[str, object]:
        moved = departures.move(
            actor=administrator, device=device, site=other_site, now=clock.now()
        )
        return selectors.provisioning_bundle(
            serial=moved.serial,
            product_line=moved.product_line_id,
            claim=services.create_claim_again(device=moved, now=clock.now()),
            trust_key=injector.agent.identity.provision.anchors.trust_key,
        )

    bundle = await in_thread(move)
    await asyncio.sleep(0.6)
    for _ in range(2):
        _report(injector)
    await asyncio.sleep(0.2)
    await injector.stop()
    (injector.state / "provision.json").write_text(json.dumps(bundle))
    await enrolment.enrol_again(injector.state)
    back = Injector(injector.state)
    back.start()
    try:
        events = Event.objects.filter(device=injector.id, code=EventCode.FLOW_LIMITED)
        await until(lambda: events.all().count() == 5, WITHIN_S)
        owners = await in_thread(lambda: list(events.values_list("organisation", flat=True)))
        assert sorted(owners) == ["north"] * 3 + ["sud"] * 2
        # The last of them stands, and is the new owner's.
        standing = await in_thread(lambda: Condition.objects.get(code=EventCode.FLOW_LIMITED))
        assert standing.organisation_id == "sud"
        filed = await in_thread(
            lambda: set(
                DeviceEntry.objects.filter(device=injector.id).values_list(
                    "organisation", flat=True
                )
            )
        )
        assert {"north", "sud"} <= filed <= {"north", "sud", None}
        assert (await in_thread(lambda: verification.verify_device(injector.id))).good
    finally:
        await back.stop()


async def test_the_intermediate_is_replaced_under_a_running_gate(
    here: Whole, tmp_path: Path
) -> None:
    """No device is touched, nothing is started anew: the gate takes both while both are about."""
    injector = here.first
    old = Copy.of(injector, tmp_path / "old")
    before = injector.agent.identity

    def rotate() -> None:
        signed = ceremony.sign(ceremony.ask(), root=ca.offline_folder(), now=clock.now())
        ceremony.take_in(signed.public_bytes(Encoding.PEM), now=clock.now())

    await in_thread(rotate)
    assert await old.gets_in(here)  # what the one before issued
    renewed = Credential.objects.filter(issued=Issued.RENEWAL, used_at__isnull=False)
    injector.days = 17
    await until(renewed.all().exists, WITHIN_S)
    injector.days = 0
    after = injector.agent.identity
    assert after.certificates[0].issuer != before.certificates[0].issuer
    assert after.certificates[1] == (await in_thread(ca.intermediates))[0]
    assert await in_thread(lambda: _online(injector.id))
