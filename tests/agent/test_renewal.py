"""A credential for life: schedule, swap, crashes, and a whole agent at the real gate (R-CON-8)."""

import asyncio
import datetime as dt
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from agent import enrolment, identity, keystore, posix, renewal
from agent.clock import Clock
from agent.errors import PeerError, StateError
from agent.identity import Identity
from agent.keystore import Slot
from agent.renewal import Renewal, Schedule, Timing, Want
from agent.runtime import Agent
from agent.wire.catalogue import EventCode, EventPhase
from agent.wire.messages import Audit, Certificate, Event, Hello
from agent.wire.messages import Renewal as Asked
from tests.agent.support import (
    DEVICE,
    EnrolmentServer,
    Portal,
    enrolled,
    leaf_for,
    portal,
    provision,
)
from tests.agent.test_runtime import Running, until
from tests.scale import scaled
from tests.tls import Authority, Issued

AUTHORITY = Authority()
STRANGER = Authority("stranger")
DAY_MS = 86_400_000
DAY = dt.timedelta(days=1)


# --- the schedule: pure ---------------------------------------------------------------------------


def plan(**changes: Any) -> Schedule:
    fields: dict[str, Any] = {
        "begins_ms": 0,
        "ends_ms": 30 * DAY_MS,
        "now": 0.0,
        "timing": Timing(),
        "jitter": random.Random(1),
    }
    return Schedule(**{**fields, **changes})


def test_it_is_due_at_half_life_and_a_fleet_does_not_ask_at_once() -> None:
    dues = []
    for seed in range(50):
        schedule = plan(jitter=random.Random(seed))
        schedule.online(0, True)
        hours = next(h for h in range(30 * 24) if schedule.want(0, h * DAY_MS // 24) is Want.ASK)
        dues.append(hours / 24)
    assert 15 <= min(dues) < 15.2
    assert 16.2 < max(dues) <= 16.6  # a twentieth of thirty days later


def test_it_asks_again_ever_more_rarely_and_never_in_step() -> None:
    schedule = plan()
    schedule.online(0, True)
    now, pauses = 0.0, []
    for _ in range(12):
        assert schedule.want(now, 20 * DAY_MS) is Want.ASK
        schedule.asked(now)
        before = now
        while schedule.want(now, 20 * DAY_MS) is Want.NOTHING:
            now += 1
        pauses.append(now - before)
    assert 30 <= pauses[0] <= 61
    assert 1800 <= pauses[-1] <= 3601
    assert max(pauses) <= 3601
    schedule.online(now, False)
    schedule.online(now, True)  # a new connection: the portal may have another mind
    assert schedule.want(now, 20 * DAY_MS) is Want.ASK


def test_without_a_connection_it_looks_for_the_way_back() -> None:
    schedule = plan()
    assert schedule.want(599, DAY_MS) is Want.NOTHING
    assert schedule.want(600, DAY_MS) is Want.RETURN  # whatever is wrong: it does no harm
    assert schedule.want(29, 31 * DAY_MS) is Want.NOTHING
    assert schedule.want(30, 31 * DAY_MS) is Want.RETURN  # by our clock it is over
    schedule.online(30, True)
    assert schedule.want(31, 31 * DAY_MS) is Want.ASK  # and yet we are let in: the clock is wrong


def test_a_clock_far_ahead_does_not_renew_without_end() -> None:
    schedule = plan(begins_ms=-400 * DAY_MS, ends_ms=-370 * DAY_MS, now=1000.0, fresh=True)
    schedule.online(1000, True)
    assert schedule.want(2000, 0) is Want.NOTHING
    schedule.online(2000, False)
    assert (
        schedule.want(2100, 0) is Want.RETURN
    )  # the new one lets nobody in: look for the way back
    schedule.online(2100, True)
    assert schedule.want(1000 + 7.4 * 86_400, 0) is Want.NOTHING
    assert schedule.want(1000 + 7.6 * 86_400, 0) is Want.ASK


def test_a_certificate_near_its_end_is_told() -> None:
    schedule = plan()
    assert not schedule.expiring(22 * DAY_MS)
    assert schedule.expiring(23 * DAY_MS)


# --- the swap -------------------------------------------------------------------------------------


def answer(
    csr: bytes, *, authority: Authority = AUTHORITY, name: str = DEVICE, **fields: Any
) -> list[bytes]:
    """What a portal would send for a CSR, or an attacker."""
    public = fields.get("key") or x509.load_der_x509_csr(csr).public_key()
    chain = [leaf_for(authority, name, public), authority.intermediate.certificate]
    return [each.public_bytes(Encoding.DER) for each in chain]


def loaded(state: Path) -> Identity:
    known = identity.load(state)
    assert known is not None
    return known


def test_the_pair_is_swapped(tmp_path: Path) -> None:
    before = loaded(enrolled(tmp_path, AUTHORITY, 1001))
    csr = renewal.next_request(before)
    assert keystore.of(tmp_path).get(Slot.NEXT) is not None
    after = renewal.accept(before, answer(csr))
    assert after is not None
    assert after.device == before.device
    assert after.key.public_key() != before.key.public_key()
    assert after.certificates[0].public_key() == after.key.public_key()
    assert loaded(tmp_path).certificates == after.certificates
    assert keystore.of(tmp_path).get(Slot.NEXT) is None
    assert after.tls_context()
    assert after.audit_key.private_bytes_raw() == before.audit_key.private_bytes_raw()
    assert renewal.accept(after, after.certificates_der()) is None  # twice is once


def test_the_request_asks_for_no_name_and_keeps_its_key(tmp_path: Path) -> None:
    """A CSR never chooses its own name or CA bit; asking twice shows the same key."""
    known = loaded(enrolled(tmp_path, AUTHORITY, 1001))
    first, second = (x509.load_der_x509_csr(renewal.next_request(known)) for _ in range(2))
    assert first.public_key() == second.public_key() != known.key.public_key()
    assert not list(first.subject)
    assert not list(first.extensions)
    assert first.is_signature_valid


@pytest.mark.parametrize(
    "fields",
    [
        {"authority": STRANGER},
        {"name": "device-0002"},
        {"key": STRANGER.root.key.public_key()},
    ],
    ids=["another root", "another device", "another key"],
)
def test_what_is_not_for_us_is_not_taken(tmp_path: Path, fields: dict[str, Any]) -> None:
    known = loaded(enrolled(tmp_path, AUTHORITY, 1001))
    csr = renewal.next_request(known)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(PeerError):
        renewal.accept(known, answer(csr, **fields))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_what_nobody_asked_for_or_ends_sooner_is_not_taken(tmp_path: Path) -> None:
    known = loaded(enrolled(tmp_path, AUTHORITY, 1001))
    with pytest.raises(PeerError, match="nobody asked"):
        renewal.accept(known, [AUTHORITY.device(DEVICE).certificate.public_bytes(Encoding.DER)])
    with pytest.raises(PeerError, match="cannot be read"):
        renewal.accept(known, [b"\x30\x00"])
    csr = renewal.next_request(known)
    later = _long_lived(known)
    with pytest.raises(PeerError, match="sooner"):
        renewal.accept(later, answer(csr))


def _long_lived(known: Identity) -> Identity:
    import dataclasses

    long = AUTHORITY.device(DEVICE, life=60 * DAY).certificate
    return dataclasses.replace(known, certificates=(long, *known.certificates[1:]))


# Every step that touches the disk, before and after it.
STEPS = 6


class _Power(BaseException):
    """The power is cut: nothing more of this process happens."""


def _cut(monkeypatch: pytest.MonkeyPatch, step: int) -> Callable[[], int]:
    """Cut the power at the `step`-th moment. Gives a function that counts the moments passed."""
    moments = 0

    def moment() -> None:
        nonlocal moments
        if moments == step:
            raise _Power
        moments += 1

    def around(real: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any) -> Any:
            moment()
            result = real(*arguments)
            moment()
            return result

        return wrapped

    monkeypatch.setattr(posix, "write_private", around(posix.write_private))
    monkeypatch.setattr(keystore.FileKeys, "promote", around(keystore.FileKeys.promote))
    return lambda: moments


@pytest.mark.parametrize("step", range(STEPS + 1))
def test_a_crash_at_every_step_leaves_the_old_pair_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """THREATS, identity: a crash between sign and store, 100 times, recovers."""
    for turn in range(scaled(100)):
        state = enrolled(tmp_path / f"{turn}", AUTHORITY, 1001)
        before = loaded(state)
        shown: list[bytes] = []
        with monkeypatch.context() as patch:
            passed = _cut(patch, step)
            try:
                shown.append(renewal.next_request(before))
                renewal.accept(before, answer(shown[0]))
            except _Power:
                assert passed() == step
            else:
                assert passed() == step == STEPS
        found = loaded(state)
        assert found.tls_context()  # certificate and key fit
        new = found.key.public_key() != before.key.public_key()
        # Whatever key was shown to the portal is still there, so the portal's answer can be used.
        if shown:
            asked = x509.load_der_x509_csr(shown[0]).public_key()
            following = keystore.of(state).get(Slot.NEXT)
            kept = found.key.public_key() if new else following and following.public_key()
            assert kept == asked
        if not new:  # and the next attempt succeeds
            again = renewal.accept(found, answer(renewal.next_request(found)))
            assert again is not None
            assert again.tls_context()
            assert loaded(state).certificates == again.certificates


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    """Key permissions are checked at start, with the remedy."""
    state = enrolled(tmp_path / "state", AUTHORITY, 1001)
    (state / "device.key").chmod(0o640)
    with pytest.raises(StateError, match=r"chmod 600 .*device\.key"):
        identity.load(state)
    (state / "device.key").chmod(0o600)
    loaded(state)
    (state / "audit.key").chmod(0o604)
    with pytest.raises(StateError, match=r"audit\.key"):
        identity.load(state)
    (state / "audit.key").chmod(0o600)
    (state / "device.key").rename(state / "elsewhere")
    (state / "device.key").symlink_to(state / "elsewhere")
    with pytest.raises(StateError, match="plain file"):
        identity.load(state)


# --- a whole agent --------------------------------------------------------------------------------


class Certifying(Portal):
    """A portal that certifies what devices ask for."""

    def _durable(self, delivery: Any, message: Any) -> None:
        super()._durable(delivery, message)
        if isinstance(message, Asked) and self.certifying:
            self.send(Certificate(certificates=answer(message.csr)))

    certifying = True


NOW = Timing(again_s=(0.2, 0.5), lost_s=0.5, lost_expired_s=0.2)


class Handled:
    """The part under test, plugged in with a quick schedule and a wall clock of the test's."""

    def __init__(self, days: float = 0) -> None:
        self.part: Renewal
        self.days = days
        self.clock = Clock(wall_seconds=self._wall)

    def _wall(self) -> float:
        return dt.datetime.now(dt.UTC).timestamp() + self.days * 86_400

    def install(self, agent: Agent) -> None:
        self.part = Renewal(agent, timing=NOW, jitter=random.Random(1))
        renewal.plug(agent, self.part)


@asynccontextmanager
async def renewing(
    tmp_path: Path, handled: Handled, served: Portal, *, state: Path | None = None, **fields: Any
) -> AsyncIterator[Running]:
    state = state or enrolled(tmp_path / "state", AUTHORITY, served.gate.port, **fields)
    async with Running(state, parts=[handled.install], clock=handled.clock) as running:
        yield running


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Serial numbers of the certificates that connected, in order."""
    serials: list[str] = []
    real = Portal.connected

    def connected(self: Portal, device: str, info: Any) -> None:
        serials.append(info.certificate.lower().lstrip("0"))
        real(self, device, info)

    monkeypatch.setattr(Portal, "connected", connected)
    return serials


def _serial(known: Identity) -> str:
    return f"{known.certificates[0].serial_number:x}"


async def test_it_renews_over_the_session_and_loses_nothing(
    tmp_path: Path, seen: list[str]
) -> None:
    """R-CON-8: at half-life a new key, a new certificate, a new connection; every event once."""
    handled = Handled(days=17)
    async with (
        portal(tmp_path / "gate", AUTHORITY, into=Certifying()) as served,
        renewing(tmp_path, handled, served) as running,
    ):
        await served.until(lambda: served.of(Hello))
        first = loaded(tmp_path / "state")
        for _ in range(40):
            running.event()
            running.agent.look()
            await asyncio.sleep(0.02)
        await served.until(lambda: len(seen) == 2)
        for _ in range(10):
            running.event()
            running.agent.look()
        await served.until(lambda: len(_events(served, EventCode.STALL)) == 50)
        second = loaded(tmp_path / "state")
        assert seen == [_serial(first), _serial(second)]
        assert second.key.public_key() != first.key.public_key()
        asked = _keys_asked_for(served)
        assert asked == {_spki(second.key.public_key())}
        await until(lambda: running.agent.outbox.depth == 0)
        actions = [e.action for a in served.of(Audit) for e in a.entries]
        assert actions.count("credential:renew") == 1
        assert running.agent.status()["certificate_expires_at"].startswith(
            str(second.expires_at.date())
        )


def _spki(key: Any) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _keys_asked_for(served: Portal) -> set[bytes]:
    return {_spki(x509.load_der_x509_csr(asked.csr).public_key()) for asked in served.of(Asked)}


def _events(served: Portal, code: EventCode) -> list[Event]:
    return [event for event in served.of(Event) if event.code is code]


async def test_before_half_life_it_asks_for_nothing(tmp_path: Path) -> None:
    async with (
        portal(tmp_path / "gate", AUTHORITY, into=Certifying()) as served,
        renewing(tmp_path, Handled(days=14), served),
    ):
        await served.until(lambda: served.of(Hello))
        await asyncio.sleep(1.2)  # two ticks and more
        assert served.of(Asked) == []


async def test_it_asks_until_it_is_answered_with_one_and_the_same_key(tmp_path: Path) -> None:
    handled = Handled(days=17)
    async with portal(tmp_path / "gate", AUTHORITY, into=Certifying()) as served:
        served.certifying = False
        async with renewing(tmp_path, handled, served):
            await served.until(lambda: len(served.of(Asked)) >= 3)
            served.certifying = True
            await served.until(lambda: served.connects == 2)
        keys = _keys_asked_for(served)
        assert len(keys) == 1


async def test_a_hostile_certificate_is_recorded_and_ignored(tmp_path: Path) -> None:
    async with (
        portal(tmp_path / "gate", AUTHORITY) as served,
        renewing(tmp_path, Handled(days=17), served) as running,
    ):
        await served.until(lambda: served.of(Asked))
        csr = served.of(Asked)[0].csr
        served.send(Certificate(certificates=answer(csr, authority=STRANGER)))
        await served.until(lambda: "message:ignore" in _actions(served))
        assert running.agent.identity.certificates == loaded(tmp_path / "state").certificates
        assert served.connects == 1


def _actions(served: Portal) -> list[str]:
    return [entry.action for audit in served.of(Audit) for entry in audit.entries]


async def test_event_702_is_raised_once_and_cleared_by_the_new_certificate(tmp_path: Path) -> None:
    handled = Handled(days=25)
    async with portal(tmp_path / "gate", AUTHORITY, into=Certifying()) as served:
        served.certifying = False
        async with renewing(tmp_path, handled, served):
            await served.until(lambda: _events(served, EventCode.CERTIFICATE_EXPIRING))
        async with renewing(tmp_path, handled, served, state=tmp_path / "state"):
            await served.until(lambda: len(served.of(Hello)) == 2)
            await asyncio.sleep(1)
            (raised,) = _events(served, EventCode.CERTIFICATE_EXPIRING)  # once, restarts included
            assert raised.phase is EventPhase.RAISED
            assert raised.value is not None
            assert 4 < raised.value < 6
            handled.days = 0  # so that the new certificate is not near its end as well
            served.certifying = True
            served.send(Certificate(certificates=answer(served.of(Asked)[0].csr)))
            await served.until(lambda: len(_events(served, EventCode.CERTIFICATE_EXPIRING)) == 2)
            cleared = _events(served, EventCode.CERTIFICATE_EXPIRING)[1]
            assert cleared.phase is EventPhase.CLEARED


def _expired(state: Path, port: int, enrol_port: int) -> Path:
    """An injector that was off for months."""
    folder = enrolled(state, AUTHORITY, port, enrol_port=enrol_port)
    own = keystore.of(folder).get(Slot.CURRENT)
    assert own is not None
    old: Issued = AUTHORITY.device(DEVICE, starts=-90 * DAY, life=30 * DAY)
    old.write_key(folder / "device.key")
    (folder / "device.pem").write_bytes(old.chain_pem)
    return folder


async def test_an_injector_that_was_off_for_months_comes_back(
    tmp_path: Path, seen: list[str]
) -> None:
    """The documented way back: refused at the gate, it asks at the enrolment endpoint with the key
    and the claim it has, and is online with a new certificate. Nobody types anything."""
    async with (
        portal(tmp_path / "gate", AUTHORITY) as served,
        EnrolmentServer(AUTHORITY, access_port=served.gate.port).serving() as server,
    ):
        state = _expired(tmp_path / "state", served.gate.port, server.port)
        old = loaded(state)
        async with renewing(tmp_path, Handled(), served, state=state) as running:
            await served.until(lambda: served.of(Hello))
            assert seen == [_serial(loaded(state))]
            assert running.agent.identity.expires_at > old.expires_at
            assert running.agent.identity.key.public_key() == old.key.public_key()
            (asked,) = server.requests
            assert asked["claim"] == "claim-0001"


async def test_a_clock_a_year_ahead_keeps_nobody_out(tmp_path: Path) -> None:
    """Clock a year off: the injector thinks its certificate is over and asks; it is given the same
    again, and goes on trying the connection, where the server's clock decides."""
    handled = Handled(days=365)
    async with (
        portal(tmp_path / "gate", AUTHORITY) as served,
        renewing(tmp_path, handled, served) as running,
    ):
        await served.until(lambda: served.of(Hello))
        assert running.agent.online
        await served.until(lambda: served.of(Asked))  # and it renews, early


async def test_a_clock_a_year_behind_finds_the_way_back_all_the_same(tmp_path: Path) -> None:
    """By its own clock the certificate is good, yet the gate does not let it in: it asks anyway."""
    handled = Handled(days=-365)
    async with (
        portal(tmp_path / "gate", AUTHORITY) as served,
        EnrolmentServer(AUTHORITY, access_port=served.gate.port).serving() as server,
    ):
        state = _expired(tmp_path / "state", served.gate.port, server.port)
        async with renewing(tmp_path, handled, served, state=state):
            await served.until(lambda: served.of(Hello))
            assert len(server.requests) == 1


async def test_a_way_back_that_is_closed_is_told_in_words(tmp_path: Path) -> None:
    refusal = EnrolmentServer(AUTHORITY, answer=lambda claim: (403, b'{"error": "claim_refused"}'))
    async with portal(tmp_path / "gate", AUTHORITY) as served, refusal.serving() as server:
        state = _expired(tmp_path / "state", served.gate.port, server.port)
        before = (state / "device.pem").read_bytes()
        async with renewing(tmp_path, Handled(), served, state=state) as running:
            await until(lambda: "certificate_trouble" in running.agent.status())
            assert "claim_refused" in running.agent.status()["certificate_trouble"]
            await until(lambda: len(server.requests) >= 2)  # somebody may put it right
        assert (state / "device.pem").read_bytes() == before


# --- back with a new claim ------------------------------------------------------------------------


async def test_a_new_claim_takes_a_new_key(tmp_path: Path) -> None:
    """After a revocation: the bundle is replaced, and the new key is the only one shown."""
    async with EnrolmentServer(AUTHORITY, access_port=4242).serving() as server:
        state = enrolled(tmp_path / "state", AUTHORITY, 1001, enrol_port=server.port)
        before = loaded(state)
        provision(state, AUTHORITY, port=server.port, claim="claim-again")
        after = await enrolment.enrol_again(state)
        assert after.device == before.device
        assert after.key.public_key() != before.key.public_key()
        assert after.audit_key.private_bytes_raw() == before.audit_key.private_bytes_raw()
        assert str(after.servers[0]) == "localhost:4242"
        (asked,) = server.requests
        assert asked["claim"] == "claim-again"
        shown = x509.load_pem_x509_csr(asked["csr"].encode()).public_key()
        assert shown == loaded(state).key.public_key()


@pytest.mark.parametrize("step", range(8))
async def test_a_crash_while_it_takes_a_new_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """The old pair or the new one, and the same call goes on with the same new key."""
    async with EnrolmentServer(AUTHORITY).serving() as server:
        state = enrolled(tmp_path / "state", AUTHORITY, 1001, enrol_port=server.port)
        with monkeypatch.context() as patch:
            _cut(patch, step)
            with pytest.raises(_Power):
                await enrolment.enrol_again(state)
        assert loaded(state).tls_context()
        if keystore.of(state).get(Slot.NEXT) is not None:
            await enrolment.enrol_again(state)
        found = loaded(state)
        assert found.tls_context()
        asked = {request["csr"] for request in server.requests}
        keys = {_spki(x509.load_pem_x509_csr(csr.encode()).public_key()) for csr in asked}
        assert len(keys) <= 1
        if keys:
            assert keys == {_spki(found.key.public_key())}


async def test_switched_off_it_looks_for_no_way_back(tmp_path: Path) -> None:
    """R-CON-9: no connection means none to the enrolment endpoint either."""
    async with EnrolmentServer(AUTHORITY).serving() as server:
        state = _expired(tmp_path / "state", 1, server.port)

        def off(agent: Agent) -> None:
            agent.remote_enabled = False

        handled = Handled()
        parts = [off, handled.install]
        async with Running(state, parts=parts, clock=handled.clock) as running:
            await until(lambda: "device" in running.agent.status())
            await asyncio.sleep(1.2)  # longer than `lost_expired_s`, and two ticks
            assert server.requests == []
