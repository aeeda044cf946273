"""A small fleet in a day's life: what every page shows something of.

Sessions and jobs get to their states the legal way, through services and inbound handlers; samples
come from the simulators that the demo runs.
"""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.usersessions.models import UserSession
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.conf import settings
from django.test import Client

from agent.drivers import ct_dual, ct_multi, mr_dual
from agent.drivers.base import DriverSettings
from agent.wire import chain, sshsig
from agent.wire.catalogue import (
    EVENT_PRIORITY,
    EventCode,
    ExecutionState,
    JobReason,
    ProductLineCode,
    SessionReason,
    SessionState,
)
from agent.wire.challenge import to_sign
from agent.wire.messages import SshProof
from fleet.access import services as access
from fleet.access.models import Session
from fleet.accounts import device_codes
from fleet.accounts.models import IdentityProvider, Organisation, User
from fleet.accounts.sealing import seal
from fleet.accounts.services import add_key, issue_token
from fleet.audit.models import DeviceEntry
from fleet.core import clock
from fleet.enrolment.models import Alarm, AlarmKind, Credential, Issued
from fleet.inventory.models import Device, Ownership, ProductLine, Site
from fleet.jobs import services as jobs
from fleet.jobs.models import Execution
from fleet.jobs.transitions import move
from fleet.servers.models import AccessServer
from fleet.telemetry.models import Condition, Event, Sample
from tests.entitled import entitle
from tests.fleet.access.injector import Injector
from tests.mfa import give_app, open_session
from tests.passkeys import Passkey

PASSWORD = "correct horse battery"
CLIENT_KEY = bytes(range(1, 33))
SERVICES = {"ssh": "os", "console": "os", "web": "service"}

_LINES = {
    "ct-multi": ("MEDRAD Centargo", "CT", ct_multi),
    "ct-dual": ("MEDRAD Stellant", "CT", ct_dual),
    "mr-dual": ("MEDRAD MRXperion", "MR", mr_dual),
}
# serial, product line, site, room, asset number, clinical state, online
_DEVICES = [
    ("CEN-20417", "ct-multi", "harbour", "CT 1", "HH-1101", "injecting", True),
    ("CEN-20418", "ct-multi", "harbour", "CT 2", "HH-1102", "idle", True),
    ("CEN-20561", "ct-multi", "clinic", "CT A", "HH-2201", "ready", True),
    ("STE-88120", "ct-dual", "harbour", "CT 3", "HH-1103", "fault", True),
    ("STE-88121", "ct-dual", "clinic", "CT B", "HH-2202", "idle", True),
    ("STE-90044", "ct-dual", "rimouski", "TDM 1", "CHR-310", "idle", True),
    ("STE-90045", "ct-dual", "rimouski", "TDM 2", "CHR-311", "service", True),
    ("MRX-01190", "mr-dual", "harbour", "MR 1", "HH-1151", "idle", True),
    ("MRX-01191", "mr-dual", "harbour", "MR 2", "HH-1152", "armed", True),
    ("MRX-01207", "mr-dual", "rimouski", "IRM 1", "CHR-350", "idle", False),
    ("CEN-20633", "ct-multi", "matane", "TDM", "CHR-470", "complete", True),
    ("STE-90102", "ct-dual", "matane", "TDM 2", "CHR-471", "idle", False),
]


class Seed:
    """What was made, by the names that the pictures use."""

    def __init__(self) -> None:
        self.now = clock.now().replace(microsecond=0)
        self.devices: dict[str, Device] = {}
        self.users: dict[str, User] = {}
        self.sessions: dict[str, Session] = {}
        self.jobs: dict[str, str] = {}
        self.user_code, self.provider = "", ""
        self._injectors: dict[str, Injector] = {}
        self._keys: dict[str, Ed25519PrivateKey] = {}
        self.make()

    def make(self) -> None:
        self._people()
        self._factors()
        self._inventory()
        for serial in ("CEN-20418", "STE-88120", "MRX-01190"):
            self._measure(self.devices[serial])
        self._wrong()
        self._sessions()
        self._jobs()
        self._servers()
        self._credentials(self.devices["CEN-20417"])

    # --- who and where ------------------------------------------------------------------------

    def _people(self) -> None:
        make = Organisation.objects.create
        vendor = make(id="vendor", name="Northfield Imaging Service", kind="vendor")
        harbour = make(id="harbour", name="Halifax Harbour Hospital", kind="hospital")
        rimouski = make(
            id="rimouski", name="Centre hospitalier de Rimouski", kind="hospital", language="fr-ca"
        )
        for username, first, last, organisation, role, language in (
            ("mdubois", "Marie", "Dubois", vendor, "specialist", "en"),
            ("tokafor", "Tobe", "Okafor", vendor, "specialist", "en"),
            ("admin", "Ada", "Lindqvist", vendor, "administrator", "en"),
            ("harbour-it", "Sam", "Boudreau", harbour, "hospital", "en"),
            ("rimouski-ti", "Luc", "Gagnon", rimouski, "hospital", "fr-ca"),
        ):
            self.users[username] = User.objects.create_user(
                username, password=PASSWORD, first_name=first, last_name=last,
                organisation=organisation, role=role, language=language,
            )  # fmt: skip
        specialist = self.users["mdubois"]
        self._key = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
        add_key(specialist, self._key.public_key().public_bytes_raw(), now=self.now)
        issue_token(specialist, "laptop", timedelta(days=90), now=self.now - timedelta(days=3))

    def _factors(self) -> None:
        """Everybody of the vendor has an authenticator app, but one who is new."""
        for username in ("mdubois", "admin"):
            give_app(self.users[username])
        specialist = self.users["mdubois"]
        credential = Passkey("http://localhost").make(
            {"challenge": "AAAA", "user": {"id": "AA"}, "rp": {"id": "localhost"}}
        )
        Authenticator.objects.create(
            user=specialist, type="webauthn", last_used_at=self.now,
            data={"name": "YubiKey 5", "credential": credential},
        )  # fmt: skip
        RecoveryCodes.activate(specialist)
        self.provider = IdentityProvider.objects.create(
            organisation=specialist.organisation, name="Northfield ID", client_id="portal",
            issuer="http://127.0.0.1:9", secret=seal("none"), domains="northfield.example",
            created_at=self.now,
        ).pk  # fmt: skip
        self.user_code = device_codes.start(
            name="patency, maries-laptop", scopes=(), address="192.0.2.41", now=self.now
        ).user_code

    def sign_in(self, username: str) -> str:
        """A session of theirs, as the cookie's value; of “half-way” the code is still to come."""
        client = Client(
            headers={
                "user-agent": "Mozilla/5.0 (X11; Linux x86_64) Chrome/140.0 Safari/537.36",
                "host": "localhost",
            }
        )
        if username == "half-way":
            client.post("/sign-in/", {"username": "mdubois", "password": PASSWORD})
            return client.cookies[settings.SESSION_COOKIE_NAME].value
        user = self.users[username]
        open_session(client, user, factor=username != "tokafor")
        key = client.cookies[settings.SESSION_COOKIE_NAME].value
        UserSession.objects.create(
            user=user, ip="192.0.2.41", session_key=key,
            user_agent="Mozilla/5.0 (Windows NT 10.0) Firefox/140.0",
        )  # fmt: skip
        return key

    def _inventory(self) -> None:
        for code, (name, modality, _driver) in _LINES.items():
            ProductLine.objects.update_or_create(
                code=code, defaults={"name": name, "modality": modality}
            )
        sites = {
            key: Site.objects.create(id=key, organisation_id=organisation, name=name, city=city)
            for key, organisation, name, city in (
                ("harbour", "harbour", "Harbour Campus", "Halifax"),
                ("clinic", "harbour", "Bedford Clinic", "Bedford"),
                ("rimouski", "rimouski", "Pavillon principal", "Rimouski"),
                ("matane", "rimouski", "Hôpital de Matane", "Matane"),
            )
        }
        for number, (serial, line, site, room, asset, state, online) in enumerate(_DEVICES):
            seen = self.now - (timedelta(seconds=4) if online else timedelta(hours=5, minutes=12))
            key = Ed25519PrivateKey.from_private_bytes(bytes([number + 1] * 32))
            device = Device.objects.create(
                id=f"dev-{serial}", serial=serial, product_line_id=line, asset_number=asset,
                room=room, site=sites[site], organisation=sites[site].organisation,
                clinical_state=state, software_version="4.2.1" if line == "ct-dual" else "2.7.0",
                agent_version="0.1.0", services=SERVICES, roster_version=3, online=online,
                online_since=self.now - timedelta(days=2) if online else None, last_seen_at=seen,
                access_server="local" if online else "", created_at=self.now - timedelta(days=400),
                audit_key=key.public_key().public_bytes_raw(),
            )  # fmt: skip
            Ownership.objects.create(
                device=device, organisation=device.organisation, starts_at=device.created_at
            )
            entitle(line, serial)
            self.devices[serial], self._keys[serial] = device, key

    # --- what they report ---------------------------------------------------------------------

    def _measure(self, device: Device, seconds: int = 3600, step: int = 3) -> None:
        code = ProductLineCode(device.product_line_id)
        driver: Any = _LINES[code][2].create(
            DriverSettings(
                product_line=code, serial=device.serial, services=dict.fromkeys(SERVICES, 1), seed=7
            )
        )
        start = self.now - timedelta(seconds=seconds)
        rows = []
        for elapsed in range(0, seconds + 1, step):
            driver.advance(float(elapsed))
            rows.append(
                Sample(
                    device=device,
                    organisation=device.organisation,
                    at=start + timedelta(seconds=elapsed),
                    received_at=self.now,
                    state=driver.state.value,
                    values={m.value: round(v, 3) for m, v in driver.values().items()},
                )
            )
        Sample.objects.bulk_create(rows)

    def _wrong(self) -> None:
        self._event("STE-88120", EventCode.STALL, minutes=14, syringe="a", value=3.42)
        self._event("STE-88120", EventCode.OVERPRESSURE, minutes=14, syringe="a", value=2104.0)
        self._event("MRX-01190", EventCode.BATTERY_CRITICAL, minutes=37, value=18.0)
        self._event("STE-90045", EventCode.DRIVE_HOT, minutes=190, syringe="b", value=71.3)
        self._event("CEN-20561", EventCode.DAYSET_EXPIRING, minutes=8, value=1.6)
        self._event("CEN-20418", EventCode.VOLUME_LOW, minutes=3, syringe="c", value=14.0)
        self._event("CEN-20633", EventCode.CALIBRATION_DUE, minutes=3000, value=12.0)
        for minutes in (400, 260, 95):
            self._event("CEN-20418", EventCode.FLOW_LIMITED, minutes=minutes, value=3.1)
            self._event("CEN-20418", EventCode.FLOW_LIMITED, minutes=minutes - 1, phase="cleared")

    def _event(
        self, serial: str, code: EventCode, *, minutes: int, syringe: str = "",
        value: float | None = None, phase: str = "raised",
    ) -> None:  # fmt: skip
        device = self.devices[serial]
        at = self.now - timedelta(minutes=minutes)
        common: dict[str, Any] = {
            "device": device, "organisation": device.organisation, "code": int(code),
            "priority": EVENT_PRIORITY[code].value, "syringe": syringe, "value": value,
        }  # fmt: skip
        Event.objects.create(
            **common, phase=phase, at=at, received_at=at, outbox="0" * 32,
            seq=Event.objects.count() + 1,
        )  # fmt: skip
        if code is not EventCode.FLOW_LIMITED:
            Condition.objects.create(**common, raised_at=at)

    # --- what people do -----------------------------------------------------------------------

    def _sessions(self) -> None:
        s = SessionState
        ended = self._session("CEN-20418", s.ENDED, minutes=300)
        self.sessions["ended"] = ended
        self._device_chain(ended)
        self._session("STE-90044", s.REFUSED, minutes=150)
        self._session("MRX-01191", s.WAITING, minutes=6, reason="inspection", ticket="")
        self.sessions["presence"] = self._session("STE-88120", s.PRESENCE, minutes=1)
        self.sessions["challenged"] = self._session("STE-88121", s.CHALLENGED, minutes=1)
        self.sessions["active"] = self._session("MRX-01190", s.ACTIVE, minutes=9)
        self.sessions["requested"] = self._session("MRX-01207", s.REQUESTED, minutes=2)

    def _session(self, serial: str, state: SessionState, *, minutes: int, **more: Any) -> Session:
        s = SessionState
        device = self.devices[serial]
        at = self.now - timedelta(minutes=minutes)
        injector = self._injector(serial, at)
        session = access.request(
            **{
                "actor": self.users["mdubois"], "device": device, "level": "os",
                "services": ["console", "ssh"], "reason": "repair", "ticket": "SR-20418",
                "note": "Pressure sensor drifts on syringe A", "life": timedelta(minutes=60),
                "now": at, **more,
            }
        )  # fmt: skip
        if state is s.REQUESTED:
            return session
        injector.says_accepted("access-request", session.pk, bytes(session.request))
        session.refresh_from_db()
        if state in (s.WAITING, s.REFUSED):
            reason = SessionReason.IN_USE if state is s.WAITING else SessionReason.POLICY
            injector.says(session, state, reason)
            return session
        injector.says_challenge(session)
        if state is s.CHALLENGED:
            return session
        signature = sshsig.sign(self._key, to_sign(bytes(session.challenge or b""), CLIENT_KEY))
        access.answer(
            actor=session.specialist, session=session, client_key=CLIENT_KEY,
            proof=SshProof(signature=signature), now=self._later(injector, 20),
        )  # fmt: skip
        self._later(injector, 1)
        injector.says(session, s.PRESENCE)
        if state is s.PRESENCE:
            return session
        self._later(injector, 15)
        injector.says_receipt(session)
        injector.says(session, s.ACTIVE)
        if state is s.ENDED:
            self._later(injector, 1860)
            injector.says(session, state, SessionReason.STOPPED_AT_PANEL)
            fields = {"bytes_up": 18_412_990, "bytes_down": 402_118}
            Session.objects.filter(pk=session.pk).update(**fields)
        return session

    def _injector(self, serial: str, at: datetime) -> Injector:
        injector = Injector(self.devices[serial], self._keys[serial], at)
        injector.now = at + timedelta(seconds=1)
        return injector

    @staticmethod
    def _later(injector: Injector, seconds: int) -> datetime:
        injector.now += timedelta(seconds=seconds)
        return injector.now

    def _device_chain(self, session: Session) -> None:
        """The injector's own record of the session, as its audit messages would have brought it."""
        previous = chain.GENESIS
        at = session.created_at
        story = [
            ("agent:start", "agent", None, 0),
            ("session:accept", "mdubois", session.pk, 1),
            ("session:challenge", "agent", session.pk, 1),
            ("session:answer", "mdubois", session.pk, 21),
            ("presence:approve", "approver-1", session.pk, 36),
            ("session:start", "agent", session.pk, 37),
            ("session:end", "agent", session.pk, 1897),
        ]
        for index, (action, actor, about, seconds) in enumerate(story):
            when = at + timedelta(seconds=seconds)
            entry: dict[str, Any] = {
                "index": index, "at": clock.to_ms(when), "boot": "b0" * 16,
                "uptime_ms": 1000 * seconds, "action": action, "actor": actor,
                "outcome": "allowed", "session": about, "execution": None, "digest": None,
                "reason": "stopped_at_panel" if action == "session:end" else None,
                "previous": previous,
            }  # fmt: skip
            entry["hash"] = previous = chain.entry_hash(entry)
            DeviceEntry.objects.create(
                device=session.device, organisation=session.organisation, index=index, entry=entry,
                hash=entry["hash"], at=when, received_at=when, action=action, session=about or "",
            )  # fmt: skip

    def _jobs(self) -> None:
        e = ExecutionState
        fleet = [d for d in self.devices.values() if d.organisation_id == "rimouski"]
        at = self.now - timedelta(minutes=25)
        actor = self.users["mdubois"]
        job = jobs.create(
            actor=actor, kind="collect-diagnostics", hours=24, devices=fleet, now=at,
            chosen={"site": "rimouski"},
        )  # fmt: skip
        self.jobs["many"] = job.pk
        rows = list(Execution.objects.filter(job=job).order_by("device__serial"))
        ways = [
            (e.SUCCEEDED, None),
            (e.RUNNING, None),
            (e.SENT, JobReason.IN_USE),
            (e.FAILED, JobReason.DISK_FULL),
        ]
        for execution, (state, reason) in zip(rows, ways, strict=False):
            self._execution(execution, state, reason)
        one = jobs.create(
            actor=actor, kind="collect-diagnostics", hours=72,
            devices=[self.devices["CEN-20418"]], now=at - timedelta(days=1),
        )  # fmt: skip
        self._execution(Execution.objects.get(job=one), e.SUCCEEDED, None)

    def _execution(
        self, execution: Execution, state: ExecutionState, reason: JobReason | None
    ) -> None:
        at = execution.created_at + timedelta(seconds=2)
        actor = execution.device_id
        if state is not ExecutionState.SENT:
            move(execution, ExecutionState.RUNNING, actor=actor, now=at)
        more: dict[str, Any] = {}
        if state is ExecutionState.SUCCEEDED:
            Execution.objects.filter(pk=execution.pk).update(
                bundle_size=184_223, bundle_digest="9f" * 32
            )
            more = {"bundle_path": f"bundles/{execution.pk}.zip"}
            at += timedelta(seconds=9)
        if state is not ExecutionState.RUNNING:
            move(execution, state, actor=actor, now=at, reason=reason, **more)

    # --- where injectors connect --------------------------------------------------------------

    def _servers(self) -> None:
        today = self.now.date()
        for position, (name, place, begins, trouble, devices) in enumerate(
            (
                ("halifax", "Halifax, Canada", -200, "", 14),
                ("toronto", "Toronto, Canada", -200, "unreachable", 0),
                ("montreal", "Montréal, Canada", 30, "not_yet", 0),
            )
        ):
            AccessServer.objects.create(
                name=name, host=f"{name}.access.northfield.example", position=10 * (position + 1),
                address=f"192.0.2.{position + 10}", place=place, region="ca",
                link=f"10.77.0.{position + 1}:8883", listed_on=today + timedelta(days=begins),
                created_at=self.now, linked=not trouble, trouble=trouble, devices=devices,
                last_seen_at=self.now if not trouble else None,
            )  # fmt: skip

    # --- what they show who they are with ------------------------------------------------------

    def _credentials(self, device: Device) -> None:
        """A life of three certificates, and somebody who showed the second one too late."""
        for number, (days, issued) in enumerate(
            ((-41, Issued.ENROLMENT), (-26, Issued.RENEWAL), (-11, Issued.RENEWAL))
        ):
            begun, last = self.now + timedelta(days=days), number == 2
            Credential.objects.create(
                device=device, serial_number=f"{number + 1}c7f20a9e4{number}b81d06", issued=issued,
                public_key=f"{number + 1:064x}", certificate=b"", not_before_at=begun,
                not_after_at=begun + timedelta(days=30), created_at=begun,
                used_at=begun + timedelta(seconds=3),
                superseded_at=None if last else begun + timedelta(days=15),
            )  # fmt: skip
        Alarm.objects.create(
            device=device, organisation=device.organisation, kind=AlarmKind.SUPERSEDED,
            raised_at=self.now - timedelta(minutes=37),
        )  # fmt: skip


def make(data: Path) -> Seed:
    """Fill the (migrated, empty) database; bundles get a file under `data`."""
    seed = Seed()
    folder = data / "bundles"
    folder.mkdir(parents=True, exist_ok=True)
    for execution in Execution.objects.exclude(bundle_path=""):
        (data / execution.bundle_path).write_bytes(b"PK\x05\x06" + bytes(18))
    return seed
