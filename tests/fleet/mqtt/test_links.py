"""Access servers as real processes, and the portal's links to them.

Requirements: R-CON-5, R-CON-6, R-CON-9.
"""

import asyncio
import ssl
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from django.core.management import CommandError, call_command

from fleet.accounts.models import User
from fleet.core import clock, ports
from fleet.enrolment import ca, endings, limits, links, services
from fleet.enrolment.models import Credential
from fleet.inventory.models import Device, ProductLine, Site
from fleet.mqtt import bundle
from fleet.servers.models import AccessServer as Row
from fleet.servers.services import set_enabled
from fleet.telemetry.models import Event
from tests.broker.raw import Raw, connect, publish
from tests.fleet.enrolment.asking import Applicant
from tests.fleet.mqtt.test_server import in_thread, serving, trusting, until
from tests.fleet.mqtt.wire import Sender
from tests.fleet.servers.making import add
from tests.servers import AccessServer

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _process() -> None:
    limits.enrolments.clear()
    ca.init(now=clock.now())


@pytest.fixture
def make(
    tmp_path: Path, administrator: User, settings: Any
) -> Iterator[Callable[[str], AccessServer]]:
    """make("east"): the row, the bundle, and a process that has not been started."""
    settings.PATENCY_NOTICE_DAYS = 0
    made: list[AccessServer] = []

    def one(name: str, *, position: int = 10, days_ago: int = 0) -> AccessServer:
        server = AccessServer(name, tmp_path / name)
        made.append(server)
        add(
            administrator, name, host="localhost", address="127.0.0.1", port=server.port,
            link=f"127.0.0.1:{server.link}", position=position,
        )  # fmt: skip
        if days_ago:
            made_at = clock.now() - timedelta(days=days_ago)
            links.write_bundle(Row.objects.get(pk=name), server.folder, now=made_at)
        else:
            call_command("access_server", "bundle", name, "--out", str(server.folder))
        return server

    yield one
    for server in made:
        server.kill()


@pytest.fixture
def enrolled(product_line: ProductLine, site: Site, tmp_path: Path) -> tuple[str, ssl.SSLContext]:
    """A device and what it shows; enrolled without HTTP, which test_server.py covers."""
    claim = services.create_claim(
        serial="SN-NEW", product_line=product_line, site=site, now=clock.now()
    )
    applicant = Applicant(claim)
    body = applicant.body()
    granted = services.enrol(
        claim=claim, serial="SN-NEW", product_line=product_line.pk, csr=body["csr"],
        audit_key=b"k" * 32, now=clock.now(),
    )  # fmt: skip
    (tmp_path / "chain.pem").write_text("".join(granted.certificates))
    key = applicant.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "key.pem").write_bytes(key)
    context = trusting()
    context.set_alpn_protocols(["mqtt"])
    context.load_cert_chain(tmp_path / "chain.pem", tmp_path / "key.pem")
    return granted.device.pk, context


async def _live(server: AccessServer, device: str, context: ssl.SSLContext) -> Raw:
    raw = await Raw.open(server.port, None, None, context=context)  # type: ignore[arg-type]
    return await raw.live(device)


def _where(device: str) -> Callable[[], str]:
    return lambda: Device.objects.get(pk=device).access_server


def _linked(name: str, state: bool = True) -> Callable[[], bool]:
    return lambda: Row.objects.get(pk=name).linked is state


async def test_a_device_on_an_access_server_is_served_as_on_ours(
    make: Any, enrolled: tuple[str, ssl.SSLContext], administrator: User
) -> None:
    """R-CON-5: presence with its place, ingest with PUBACK after the commit, push, kick, health."""
    device, context = enrolled
    east = await in_thread(lambda: make("east").start())
    async with serving() as running:
        await until(_linked("east"), 10)
        async with await _live(east, device, context) as raw:
            await until(lambda: _where(device)() == "east", 5)
            event = Sender(device).event()
            raw.send(publish(f"pat/1/{device}/up/event/1", event.payload, first=0x32, id=7))
            assert await raw.packet() == (0x40, b"\0\x07")
            assert await in_thread(lambda: Event.objects.filter(device=device).count()) == 1
            assert running.exchange.publish(f"pat/1/{device}/dn/cancel/1", b"{}")
            assert await raw.message() == (f"pat/1/{device}/dn/cancel/1", b"{}")
            await until(lambda: Row.objects.get(pk="east").devices == 1, 5)
            await in_thread(lambda: ports.kick(device))
            await raw.ended()
        await until(lambda: _where(device)() == "", 5)
        await in_thread(
            lambda: set_enabled(actor=administrator, name="east", enabled=False, now=clock.now())
        )
        await until(_linked("east", False), 5)
    assert await in_thread(east.terminate) == 0
    assert "Traceback" not in east.output


async def test_a_revoked_credential_is_out_within_two_seconds_and_stays_out(
    make: Any, enrolled: tuple[str, ssl.SSLContext]
) -> None:
    """R-CON-9: at an access server elsewhere, after its restart, and while the portal is away."""
    device, context = enrolled
    east = await in_thread(lambda: make("east").start())

    def revoke() -> None:
        Credential.objects.filter(device=device).update(revoked_at=clock.now())

    async with serving():
        await until(_linked("east"), 10)
        async with await _live(east, device, context) as raw:
            await in_thread(revoke)
            await raw.ended(2)
        await until((east.folder / "denied.json").exists, 2)
    await in_thread(east.kill)
    await in_thread(east.start)
    async with await Raw.open(east.port, None, None, context=context) as raw:  # type: ignore[arg-type]
        raw.send(connect(device))
        assert await raw.ended() == b""


async def test_the_portal_goes_and_comes_and_the_device_stays(
    make: Any, enrolled: tuple[str, ssl.SSLContext]
) -> None:
    """R-CON-5, R-MNT-3: what it sends meanwhile waits, and is decided once."""
    device, context = enrolled
    east = await in_thread(lambda: make("east").start())
    sender = Sender(device)
    async with serving():
        await until(_linked("east"), 10)
        raw = await _live(east, device, context)
        await until(lambda: _where(device)() == "east", 5)
    for number in range(1, 6):
        payload = sender.event().payload
        raw.send(publish(f"pat/1/{device}/up/event/1", payload, first=0x32, id=number))
    await raw.ping()
    await asyncio.sleep(1)
    await raw.ping()
    async with serving():
        assert [await raw.packet(15) for _ in range(5)] == [
            (0x40, bytes((0, number))) for number in range(1, 6)
        ]
        await until(lambda: _where(device)() == "east", 5)
        assert await in_thread(lambda: Event.objects.filter(device=device).count()) == 5
    await raw.abort()


async def test_an_access_server_that_dies_is_seen(make: Any) -> None:
    east = await in_thread(lambda: make("east").start())
    async with serving() as running:
        await until(_linked("east"), 10)
        await in_thread(east.kill)
        await until(_linked("east", False), 5)
        row = await in_thread(lambda: Row.objects.get(pk="east"))
        assert row.trouble in ("lost", "unreachable")
        assert row.last_seen_at is not None
        assert running.exchange.transports.keys() == {"local", "east"}
        await in_thread(east.start)
        await until(_linked("east"), 15)


async def test_the_end_of_its_certificates_is_said_in_time(make: Any) -> None:
    """By the process itself, with the command, and at the portal: row, readiness; a renewed bundle
    settles it with the restart."""
    east = await in_thread(lambda: make("east", days_ago=390).start())
    assert "certificates of access server east end on" in east.output
    assert "manage.py access-server bundle east --out east" in east.output
    async with serving():
        await until(_linked("east"), 10)
        first = await in_thread(lambda: Row.objects.get(pk="east").certificates_end_at)
        assert timedelta(days=6) < first - clock.now() < timedelta(days=7)
        assert await in_thread(endings.warnings) == ["certificate_urgent:access_server"]
        await in_thread(
            lambda: call_command("access_server", "bundle", "east", "--out", str(east.folder))
        )
        assert await in_thread(endings.warnings) != []  # not there yet
        await in_thread(east.terminate)
        await in_thread(east.start)
        await until(lambda: endings.warnings() == [], 15)
    assert east.output.count("end on") == 1


# --- the bundle and the command -------------------------------------------------------------------


def test_a_bundle_holds_no_authority(make: Any) -> None:
    """Whoever takes an access server over can make no certificate."""
    folder = make("east").folder
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "access-server.json", "device-ca.pem", "device-root.pem", "link-ca.pem", "link.key",
        "link.pem", "server.key", "server.pem",
    }  # fmt: skip
    secrets = [path.read_bytes() for path in ca.folder().glob("*.key")]
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.read_bytes() not in secrets
    before = (folder / "link.pem").read_bytes()
    call_command("access_server", "bundle", "east", "--out", str(folder))  # renewed
    assert (folder / "link.pem").read_bytes() != before


def test_the_portals_own_certificate_is_renewed_at_half_of_its_life() -> None:
    now = clock.now()
    links.ensure(now)
    held = (ca.folder() / "link.pem").read_bytes()
    authority = (ca.folder() / "link-ca.pem").read_bytes()
    links.ensure(now + ca.SERVER_LIFE * 0.4)
    assert (ca.folder() / "link.pem").read_bytes() == held
    links.ensure(now + ca.SERVER_LIFE * 0.6)
    assert (ca.folder() / "link.pem").read_bytes() != held
    assert (ca.folder() / "link-ca.pem").read_bytes() == authority


def test_bundles_of_others_and_broken_ones_are_named(make: Any, tmp_path: Path) -> None:
    from fleet.core.errors import Conflict, Invalid

    folder = make("east").folder
    assert str(bundle.read(folder, "east").gate.port) in (folder / bundle.FILE).read_text()
    assert bundle.read(folder, "east", link="127.0.0.1:1").uplink.port == 1
    with pytest.raises(Invalid, match="of east, not of west"):
        bundle.read(folder, "west")
    with pytest.raises(Conflict, match="access-server bundle north"):
        bundle.read(tmp_path, "north")
    (folder / "link.key").unlink()
    with pytest.raises(Conflict, match=r"link\.key is missing"):
        bundle.read(folder, "east")
    with pytest.raises(CommandError, match="no access server north"):
        call_command("access_server", "bundle", "north", "--out", str(tmp_path / "north"))


def test_a_worker_apart_is_refused_with_the_reason() -> None:
    """It would end sessions in the database and leave them open at the injector."""
    with pytest.raises(CommandError, match=r"must reach injectors.*How many processes"):
        call_command("up", "--only", "worker")


def test_up_says_what_does_not_fit(make: Any) -> None:
    for arguments in (["--only", "gate"], ["--name", "east"], ["--only", "web", "--demo"]):
        with pytest.raises(CommandError):
            call_command("up", *arguments)
    east = make("east")
    (east.folder / "denied.json").write_text("?")
    east.begin()
    assert east.process.wait(30) == 1
    assert "denied.json cannot be read" in east.output
    assert "Traceback" not in east.output
    assert not (east.folder / "portal.db").exists()
    assert not (east.folder / "secret").exists()


def test_the_list_of_access_servers(make: Any, capsys: pytest.CaptureFixture[str]) -> None:
    make("east")
    call_command("access_server", "show")
    assert "localhost" in capsys.readouterr().out
