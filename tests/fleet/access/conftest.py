"""Sessions in each of their states, and the people and the injector that get them there."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.wire import sshsig
from agent.wire.catalogue import SessionReason, SessionState
from agent.wire.challenge import to_sign
from agent.wire.messages import Proof, SshProof
from fleet.access import services
from fleet.access.models import Session
from fleet.accounts.models import User
from fleet.inventory.models import Device
from tests.fleet.access.injector import Injector

CLIENT_KEY = bytes(range(1, 33))
S = SessionState


@pytest.fixture
def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def injector(device: Device, audit_key: Ed25519PrivateKey, now: datetime) -> Injector:
    return Injector(device, audit_key, now)


@pytest.fixture
def ask(owner: User, device: Device, now: datetime) -> Callable[..., Session]:
    """ask(**changes): the owner asks for access to the device."""

    def make(**changes: Any) -> Session:
        fields: dict[str, Any] = {
            "actor": owner,
            "device": device,
            "level": "os",
            "services": ["ssh"],
            "reason": "repair",
            "ticket": "T-1",
            "note": "Pressure drifts",
            "life": timedelta(minutes=30),
            "now": now,
        }
        return services.request(**{**fields, **changes})

    return make


@pytest.fixture
def specialist_key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)


@pytest.fixture
def sign(specialist_key: Ed25519PrivateKey) -> Callable[[Session], Proof]:
    def make(session: Session) -> Proof:
        signed = to_sign(bytes(session.challenge or b""), CLIENT_KEY)
        return SshProof(signature=sshsig.sign(specialist_key, signed))

    return make


@pytest.fixture
def reach(
    ask: Callable[..., Session], injector: Injector, sign: Callable[[Session], Proof]
) -> Callable[..., Session]:
    """reach(state): a session of the owner that got to this state the legal way."""

    def make(state: SessionState, **changes: Any) -> Session:
        session = ask(**changes)
        if state is S.REQUESTED:
            return session
        injector.says_accepted("access-request", session.pk, bytes(session.request))
        session.refresh_from_db()
        if state is S.WAITING:
            injector.says(session, S.WAITING, SessionReason.IN_USE)
        if state in (S.ACCEPTED, S.WAITING):
            return session
        if state is S.REFUSED:
            injector.says(session, state, SessionReason.POLICY)
            return session
        injector.says_challenge(session)
        if state is S.CHALLENGED:
            return session
        if state is S.EXPIRED:
            injector.says(session, state, SessionReason.NO_ANSWER)
            return session
        services.answer(
            actor=session.specialist,
            session=session,
            client_key=CLIENT_KEY,
            proof=sign(session),
            now=injector.now,
        )
        injector.says(session, S.PRESENCE)
        if state is S.PRESENCE:
            return session
        injector.says_receipt(session)
        injector.says(session, S.ACTIVE)
        if state is S.ENDED:
            injector.says(session, state, SessionReason.STOPPED_AT_PANEL)
        return session

    return make
