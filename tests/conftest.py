"""What portal tests share: three people (owner, member, stranger), their organisations, devices.

`owner` is the specialist who works on the device, `member` the IT person of the hospital that has
it, `stranger` the IT person of another hospital, who must see nothing of it.
"""

import itertools
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from django.test import Client
    from rest_framework.test import APIClient

    from agent.wire.messages import Message
    from broker.denied import DenyList
    from fleet.accounts.models import Organisation, User
    from fleet.inventory.models import Device, ProductLine, Site
    from tests.demo import Demo

PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True)
def portal_data(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The portal's data directory of this test; nothing is written anywhere else."""
    settings = request.getfixturevalue("settings")
    folder = tmp_path / "portal"
    settings.PATENCY_DATA = folder
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # fast
    return folder


@pytest.fixture(autouse=True)
def own_language() -> Iterator[None]:
    """What a request of this test switched on does not last: in production a request has its own
    context, here it has the test's."""
    from django.utils import translation

    yield
    translation.deactivate()


@pytest.fixture(scope="session")
def demo() -> "Iterator[Demo]":
    """The real demo, started once a run and shared by every test that asks for it."""
    from tests.demo import running

    with running() as started:
        yield started


@pytest.fixture(scope="session")
def django_db_modify_db_settings(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A database in a file, as in production: threads see each other's commits and locks."""
    from django.db import connections

    database = connections["default"].settings_dict
    database["TEST"]["NAME"] = str(tmp_path_factory.mktemp("database") / "test.db")
    # Nothing here must survive a power cut.
    options = database["OPTIONS"]
    options["init_command"] = options["init_command"].replace("FULL", "OFF")


# --- organisations and people -------------------------------------------------------------------


@pytest.fixture
def vendor(db: None) -> "Organisation":
    from fleet.accounts.models import Organisation

    return Organisation.objects.create(id="vendor", name="Vendor", kind="vendor")


@pytest.fixture
def hospital(db: None) -> "Organisation":
    from fleet.accounts.models import Organisation

    return Organisation.objects.create(id="north", name="North Hospital", kind="hospital")


@pytest.fixture
def other_hospital(db: None) -> "Organisation":
    from fleet.accounts.models import Organisation

    return Organisation.objects.create(
        id="sud", name="Hôpital du Sud", kind="hospital", language="fr-ca"
    )


@pytest.fixture
def make_user(db: None) -> Callable[..., "User"]:
    """make_user(organisation, role, username=…, language=…) with PASSWORD."""
    from fleet.accounts.models import User

    numbers = itertools.count(1)

    def make(organisation: "Organisation", role: str, **fields: Any) -> "User":
        fields.setdefault("username", f"{role}-{next(numbers)}")
        return User.objects.create_user(
            password=PASSWORD, organisation=organisation, role=role, **fields
        )

    return make


@pytest.fixture
def administrator(make_user: Callable[..., "User"], vendor: "Organisation") -> "User":
    return make_user(vendor, "administrator", username="admin")


@pytest.fixture
def owner(make_user: Callable[..., "User"], vendor: "Organisation") -> "User":
    """The specialist who works on `device`."""
    return make_user(vendor, "specialist", username="owner", first_name="Olga", last_name="Owner")


@pytest.fixture
def colleague(make_user: Callable[..., "User"], vendor: "Organisation") -> "User":
    """Another specialist of the vendor."""
    return make_user(vendor, "specialist", username="colleague")


@pytest.fixture
def member(make_user: Callable[..., "User"], hospital: "Organisation") -> "User":
    """IT of the hospital that has `device`."""
    return make_user(hospital, "hospital", username="member")


@pytest.fixture
def stranger(make_user: Callable[..., "User"], other_hospital: "Organisation") -> "User":
    """IT of another hospital."""
    return make_user(other_hospital, "hospital", username="stranger")


# --- devices ------------------------------------------------------------------------------------


@pytest.fixture
def product_line(db: None) -> "ProductLine":
    from fleet.inventory.models import ProductLine

    return ProductLine.objects.create(code="ct-dual", name="Dual", modality="CT")


@pytest.fixture
def site(hospital: "Organisation") -> "Site":
    from fleet.inventory.models import Site

    return Site.objects.create(organisation=hospital, name="Main", city="Halifax")


@pytest.fixture
def other_site(other_hospital: "Organisation") -> "Site":
    from fleet.inventory.models import Site

    return Site.objects.create(organisation=other_hospital, name="Sud", city="Rimouski")


@pytest.fixture
def audit_key() -> "Ed25519PrivateKey":
    """The audit key of `device`."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


@pytest.fixture
def make_device(product_line: "ProductLine") -> Callable[..., "Device"]:
    """make_device(site, serial=…, **fields): enrolled, online, idle, entitled."""
    from fleet.core import clock
    from fleet.inventory.models import Device, Ownership
    from tests.entitled import entitle

    numbers = itertools.count(1)

    def make(site: "Site", **fields: Any) -> "Device":
        now = clock.now()
        fields.setdefault("serial", f"SN-{next(numbers):04}")
        defaults = {
            "product_line": product_line,
            "site": site,
            "organisation": site.organisation,
            "clinical_state": "idle",
            "software_version": "4.2.0",
            "agent_version": "0.1.0",
            "services": {"ssh": "os", "console": "os", "web": "service"},
            "online": True,
            "online_since": now,
            "last_seen_at": now,
            "access_server": "local",
            "created_at": now,
        }
        device = Device.objects.create(**{**defaults, **fields})
        Ownership.objects.create(device=device, organisation=site.organisation, starts_at=now)
        entitle(device.product_line_id, device.serial)
        return device

    return make


@pytest.fixture
def device(
    make_device: Callable[..., "Device"], site: "Site", audit_key: "Ed25519PrivateKey"
) -> "Device":
    return make_device(
        site,
        id="device-0001",
        serial="SN-TEST",
        asset_number="A-1",
        room="CT 2",
        audit_key=audit_key.public_key().public_bytes_raw(),
    )


@pytest.fixture
def other_device(make_device: Callable[..., "Device"], other_site: "Site") -> "Device":
    return make_device(other_site, id="device-0002", serial="SN-OTHER")


# --- clients ------------------------------------------------------------------------------------


@pytest.fixture
def api() -> Callable[["User"], "APIClient"]:
    """api(user): a client of the API with a bearer token."""
    from rest_framework.test import APIClient

    from fleet.accounts.services import issue_token

    def make(user: "User") -> "APIClient":
        client = APIClient()
        token = issue_token(user, "test", timedelta(hours=1))
        client.credentials(HTTP_AUTHORIZATION=f"Bearer {token}")
        return client

    return make


@pytest.fixture
def browser() -> Callable[["User"], "Client"]:
    """browser(user): a client of the pages, signed in just now with a second factor."""
    from django.test import Client

    from tests.mfa import open_session

    def make(user: "User") -> "Client":
        client = Client()
        open_session(client, user)
        return client

    return make


# --- what goes out ------------------------------------------------------------------------------


@dataclass
class Ports:
    """What services gave to fleet.core.ports, in order."""

    sent: list[tuple[str, "Message"]] = field(default_factory=list)
    kicked: list[str] = field(default_factory=list)
    denied: list["DenyList"] = field(default_factory=list)
    hints: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    frames: list[tuple[str, bytes]] = field(default_factory=list)

    def frame(self, device: str, frame: bytes) -> bool:
        self.frames.append((device, frame))
        return True


@pytest.fixture
def ports() -> Iterator[Ports]:
    """Records what is sent, kicked and hinted. Inside a `db` test nothing commits: use
    `django_capture_on_commit_callbacks(execute=True)` or the `transactional_db` fixture."""
    from fleet.core import ports as real

    recorder = Ports()
    before = (real._sender, real._kicker, real._denier, real._hinter, real._frame_sender)
    real.set_sender(lambda device, message: recorder.sent.append((device, message)))
    real.set_kicker(recorder.kicked.append)
    real.set_denier(recorder.denied.append)
    real.set_hinter(lambda group, payload: recorder.hints.append((group, payload)))
    real.set_frame_sender(recorder.frame)
    yield recorder
    real._sender, real._kicker, real._denier, real._hinter, real._frame_sender = before


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
