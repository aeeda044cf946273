"""A desk with its surroundings, honest people, and an attacker who owns the portal.

The attacks of THREATS are methods of `Bench`; each returns what the desk did.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from agent.access.book import Limits
from agent.access.conditions import Facts
from agent.access.desk import Desk
from agent.access.effects import (
    Activate,
    Deactivate,
    Effect,
    Emit,
    Now,
    PanelResult,
    Record,
    SendChallenge,
    SendReceipt,
)
from agent.access.pins import Verdict
from agent.access.policy import Policy
from agent.wire import challenge, seal, sshsig
from agent.wire.catalogue import (
    ClinicalState,
    Level,
    ProductLineCode,
    RequestReason,
    SessionReason,
    SessionState,
)
from agent.wire.messages import (
    AccessRequest,
    Answer,
    End,
    EndReason,
    SessionUpdate,
    SshProof,
    encode,
)
from agent.wire.roster import Member, Roster
from tests.entitled import entitlement

DEVICE = "injector-0001"
BOOT = "b0" * 16
WALL = 1_800_000_000_000  # ms
DAY = 86_400_000
SERVICES = {"ssh": Level.OS, "console": Level.OS, "web": Level.SERVICE, "logs": Level.DIAGNOSTICS}


def digest(message: Any) -> str:
    return hashlib.sha256(encode(message)).hexdigest()


@dataclass
class Specialist:
    id: str
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    client: X25519PrivateKey = field(default_factory=X25519PrivateKey.generate)

    @property
    def public(self) -> bytes:
        return sshsig.public_blob(self.key.public_key().public_bytes_raw())

    @property
    def client_key(self) -> bytes:
        return self.client.public_key().public_bytes_raw()

    def answer(self, session: str, challenged: bytes) -> Answer:
        signature = sshsig.sign(self.key, challenge.to_sign(challenged, self.client_key))
        return Answer(
            session=session, client_key=self.client_key, proof=SshProof(signature=signature)
        )

    def member(self, **changes: Any) -> Member:
        fields: dict[str, Any] = {
            "id": self.id,
            "name": self.id.title(),
            "keys": [self.public],
            "level": Level.OS,
            "patient_data": True,
            "product_lines": [ProductLineCode.CT_DUAL],
            "until": WALL + 300 * DAY,
        }
        return Member(**{**fields, **changes})


def roster(*members: Member, version: int = 1, **changes: Any) -> Roster:
    fields: dict[str, Any] = {"issued_at": WALL - DAY, "expires_at": WALL + 6 * DAY}
    return Roster(version=version, members=list(members), **{**fields, **changes})


class Bench:
    """`alice` and `bob` are rostered, `mallory` is not. Clocks stand until `later`."""

    def __init__(
        self,
        *,
        clinical: ClinicalState = ClinicalState.IDLE,
        policy: Policy | None = None,
        limits: Limits | None = None,
        device: str = DEVICE,
    ) -> None:
        self.alice, self.bob, self.mallory = map(Specialist, ("alice", "bob", "mallory"))
        self.facts = Facts(
            device=device,
            product_line=ProductLineCode.CT_DUAL,
            boot=BOOT,
            services=SERVICES,
            policy=policy or Policy(),
            roster=roster(self.alice.member(), self.bob.member()),
            entitlement=entitlement("ct-dual", "S-1", WALL, ends_at=WALL + 300 * DAY),
        )
        self.desk = Desk(self.facts, clinical, limits=limits)
        self.now = Now(1000.0, WALL)
        self.done: list[Effect] = []
        self._next = 0

    # --- ordinary days ---------------------------------------------------------------------------

    def later(self, seconds: float) -> list[Effect]:
        """Time passes, in steps of the tick's size where it matters."""
        self.now = Now(self.now.boot_s + seconds, self.now.wall_ms + int(seconds * 1000))
        return self._did(self.desk.tick(self.now))

    def ask(self, **changes: Any) -> AccessRequest:
        self._next += 1
        fields: dict[str, Any] = {
            "at": self.now.wall_ms,
            "session": f"{self._next:032x}",
            "device": self.facts.device,
            "specialist": "alice",
            "name": "Alice",
            "organisation": "Vendor",
            "level": Level.OS,
            "services": ["ssh"],
            "reason": RequestReason.REPAIR,
            "ticket": "T-1",
            "life_s": 1800,
        }
        return AccessRequest(**{**fields, **changes})

    def request(self, asked: AccessRequest | None = None, **changes: Any) -> str:
        """Ask; returns the session's id."""
        asked = asked or self.ask(**changes)
        self._did(self.desk.request(self.now, asked, digest(asked)))
        return asked.session

    def challenge(self, session: str) -> bytes:
        sent = [e for e in self.done if isinstance(e, SendChallenge) and e.session == session]
        return sent[-1].challenge

    def answer(self, session: str, answer: Answer | None = None) -> list[Effect]:
        answer = answer or self.alice.answer(session, self.challenge(session))
        return self._did(self.desk.answer(self.now, answer, digest(answer)))

    def approve(
        self, session: str, verdict: Verdict | None = None, ticket_h: int = 0
    ) -> PanelResult:
        result, effects = self.desk.approve(self.now, session, verdict or Verdict(1), ticket_h)
        self._did(effects)
        return result

    def refuse(self, session: str | None = None) -> PanelResult:
        result, effects = self.desk.refuse(self.now, session)
        self._did(effects)
        return result

    def stop(self, session: str | None = None) -> PanelResult:
        result, effects = self.desk.stop(self.now, session)
        self._did(effects)
        return result

    def end(self, session: str, reason: EndReason = EndReason.ENDED_BY_PORTAL) -> list[Effect]:
        message = End(session=session, reason=reason)
        return self._did(self.desk.end(self.now, message, digest(message)))

    def clinical(self, state: ClinicalState) -> list[Effect]:
        return self._did(self.desk.clinical_changed(self.now, state))

    def policy(self, **changes: Any) -> list[Effect]:
        new = msgspec.structs.replace(self.facts.policy, **changes)
        return self._did(self.desk.policy_changed(self.now, new))

    def roster(self, *members: Member, version: int = 2, **changes: Any) -> list[Effect]:
        new = roster(*members, version=version, **changes)
        return self._did(self.desk.roster_changed(self.now, new))

    def entitle(self, **changes: Any) -> list[Effect]:
        new = entitlement("ct-dual", "S-1", self.now.wall_ms, **changes)
        return self._did(self.desk.entitlement_changed(self.now, new))

    def moved(self, session: str, up: int, down: int) -> None:
        self.desk.activity(self.now, session, up, down)

    def active(self, **changes: Any) -> str:
        """A session all the way in."""
        session = self.request(**changes)
        self.answer(session)
        if self.state(session) is SessionState.PRESENCE:
            assert self.approve(session) is PanelResult.DONE
        assert self.state(session) is SessionState.ACTIVE
        return session

    # --- attacks ---------------------------------------------------------------------------------

    def answer_as(self, who: Specialist, session: str) -> list[Effect]:
        """Someone else signs the right challenge."""
        return self.answer(session, who.answer(session, self.challenge(session)))

    def answer_edited(self, session: str, **changes: Any) -> list[Effect]:
        """The portal shows the specialist other terms than the device made."""
        terms = challenge.decode(self.challenge(session))
        shown = challenge.encode(msgspec.structs.replace(terms, **changes))
        return self.answer(session, self.alice.answer(session, shown))

    def answer_of_another_device(self, session: str) -> list[Effect]:
        """The same request made to another injector, and its challenge signed."""
        other = Bench(device="injector-0002")
        other.facts.roster = self.facts.roster
        asked = other.ask(session=session)
        other.request(asked)
        return self.answer(session, self.alice.answer(session, other.challenge(session)))

    def answer_with_own_key(self, session: str) -> list[Effect]:
        """The portal swaps the client's X25519 key for its own under a good signature."""
        good = self.alice.answer(session, self.challenge(session))
        return self.answer(
            session, msgspec.structs.replace(good, client_key=self.mallory.client_key)
        )

    def answer_with_weak_key(self, session: str) -> list[Effect]:
        """A client key for which everybody knows the shared secret."""
        weak = bytes(32)
        challenged = self.challenge(session)
        signature = sshsig.sign(self.alice.key, challenge.to_sign(challenged, weak))
        return self.answer(
            session, Answer(session=session, client_key=weak, proof=SshProof(signature=signature))
        )

    # --- what happened ---------------------------------------------------------------------------

    def _did(self, effects: list[Effect]) -> list[Effect]:
        self.done += effects
        return effects

    def state(self, session: str) -> SessionState:
        it = self.desk.session(session)
        assert it is not None
        return it.state

    def updates(self, session: str) -> list[tuple[SessionState, SessionReason | None]]:
        return [
            (e.fields["state"], e.fields["reason"])
            for e in self.done
            if isinstance(e, Emit) and e.kind is SessionUpdate and e.fields["session"] == session
        ]

    def last(self, session: str) -> tuple[SessionState, SessionReason | None]:
        return self.updates(session)[-1]

    def records(self, session: str) -> list[tuple[str, str, str, str | None]]:
        """(action, actor, outcome, reason)"""
        records = [e.record if isinstance(e, SendReceipt) else e for e in self.done]
        return [
            (e.action, e.actor, e.outcome.value, e.reason)
            for e in records
            if isinstance(e, Record) and e.session == session
        ]

    def activations(self) -> list[str]:
        return [e.session for e in self.done if isinstance(e, Activate)]

    def deactivations(self) -> list[str]:
        return [e.session for e in self.done if isinstance(e, Deactivate)]


def client_seal(bench: Bench, who: Specialist, session: str) -> seal.Seal:
    """The other end's seal, from what the specialist has seen."""
    challenged = bench.challenge(session)
    return seal.derive(
        private=who.client,
        peer=challenge.decode(challenged).key,
        binding=challenge.digest(challenged),
        session=bytes.fromhex(session),
        role=seal.Role.CLIENT,
    )
