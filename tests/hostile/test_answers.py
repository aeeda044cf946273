"""Answers: only the specialist who was asked, for what the injector said, once (R-ACC-4, R-ACC-6).

The device authority is the attacker's, so it can make a challenge that an honest program believes.
It is worth nothing at the injector, which takes an answer to its own bytes alone.
"""

import base64
import hashlib
import json
from datetime import UTC, datetime

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from agent.wire import challenge, messages
from agent.wire.catalogue import Level, SessionReason, SessionState
from agent.wire.messages import AccessRequest, Answer, SshProof
from fleet.access.models import Session
from fleet.client import believe
from fleet.client.errors import NotBelieved
from fleet.core import clock
from fleet.enrolment import ca
from tests.agent.access.authenticator import Authenticator
from tests.fleet.mqtt.test_server import in_thread
from tests.hostile.conftest import ORIGIN
from tests.hostile.stage import Stage, edited, eventually
from tests.whole import PIN, publish, replay
from tests.whole import roster as of

pytestmark = pytest.mark.django_db(transaction=True)

R = SessionReason


class Impostor:
    """An injector of the attacker's making: its certificate is the device authority's."""

    def __init__(self, device: str) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.exchange = X25519PrivateKey.generate()
        leaf = ca.issue_device(device, self.key.public_key(), now=clock.now())
        chain = (leaf, ca.load("device-ca").certificate)
        self.certificates = [each.public_bytes(Encoding.DER) for each in chain]

    def sign(self, data: bytes) -> bytes:
        return self.key.sign(data, ec.ECDSA(SHA256()))


def _believed(
    row: Session, data: bytes, signature: bytes, certificates: list[bytes], **asked: object
) -> challenge.Terms:
    """What alice's program makes of it; `asked` where she asked for something else than the
    portal sent. Raises NotBelieved."""
    request = believe.read_request(bytes(row.request))
    meant = msgspec.structs.replace(believe.asked_in(request, "SN-i0"), **asked)
    return believe.verify(
        data=data, signature=signature, certificates=certificates, request=bytes(row.request),
        session=row.pk, asked=meant, now=datetime.now(UTC),
        roots=x509.load_pem_x509_certificates(ca.pem("device-root").encode()),
    )  # fmt: skip


async def test_the_attackers_own_key(stage: Stage) -> None:
    """alice's session is answered by a key of the attacker's, which no roster names."""
    here = stage.here
    session = await here.ask(stage.injector, level="os", services=["ssh"])
    await here.answer(session, here.mallory)
    await here.refused(stage.injector, session, R.NOT_ROSTERED)
    stage.stopped.append("the roster, at the injector: not_rostered")


async def test_the_clients_key_is_swapped(stage: Stage) -> None:
    """alice's true signature, with an X25519 key of the attacker's in the place of hers."""
    here = stage.here
    session = await here.ask(stage.injector, level="os", services=["ssh"])
    signature = here.alice.sign(await here.challenged(session))
    await here.pass_on(session, here.mallory.client_key, signature)
    await here.refused(stage.injector, session, R.BAD_SIGNATURE)
    stage.stopped.append("the signature covers the client's key: bad_signature")


async def test_a_man_in_the_middle_of_the_key_exchange(stage: Stage) -> None:
    """The portal plays the injector, with a certificate of its own authority: alice's program
    believes the challenge, and what she signs goes to the real one."""
    here = stage.here
    session = await here.ask(stage.injector, level="os", services=["ssh"])
    true = await here.challenged(session)
    impostor = await in_thread(lambda: Impostor(stage.injector.id))
    fake = edited(true, key=impostor.exchange.public_key().public_bytes_raw())
    row = await here.row(session)
    _believed(row, fake, impostor.sign(fake), impostor.certificates)
    shown = challenge.code(fake)  # what alice reads out; the panel computes its own
    await here.answer(session, here.alice, shown=fake)
    await here.refused(stage.injector, session, R.BAD_SIGNATURE)
    assert shown != challenge.code(true)
    stage.stopped.append("the signature covers the injector's own bytes; the codes differ as well")


async def test_edited_terms(stage: Stage) -> None:
    """The injector is asked for `os`; alice, who asked for `service`, is shown `service`."""
    here = stage.here
    session = await here.ask(stage.injector, level="os", services=["ssh"])
    true, row = await here.challenged(session), await here.row(session)
    impostor = await in_thread(lambda: Impostor(stage.injector.id))
    meant = {"level": "service", "services": ["web"]}
    fake = edited(true, level=Level.SERVICE, services=["web"], presence=False)
    for data, signature, certificates in (
        (true, bytes(row.challenge_signature or b""), _certificates(row)),
        (fake, impostor.sign(fake), impostor.certificates),
    ):
        with pytest.raises(NotBelieved):
            _believed(row, data, signature, certificates, **meant)
    await here.answer(session, here.alice, shown=fake)  # and if she signs all the same
    await here.refused(stage.injector, session, R.BAD_SIGNATURE)
    stage.stopped.append("alice's program signs what she asked for alone; then bad_signature")


def _certificates(row: Session) -> list[bytes]:
    return [base64.b64decode(each) for each in row.certificates or []]


async def test_waking_an_honest_specialist(stage: Stage) -> None:
    """alice asks for the web page; under the number of her session the portal asks for a shell,
    passes her that challenge, and says that hers came first or that she asked for a shell."""
    here = stage.here
    with here.holding() as held:
        session = await here.ask(stage.injector, level="service", services=["web"])
    asked = next(each for each in held if isinstance(each, AccessRequest))
    raced = msgspec.structs.replace(asked, level=Level.OS, services=["ssh"])
    rows = Session.objects.filter(pk=session)
    payload = messages.encode(raced)
    digest = hashlib.sha256(payload).hexdigest()
    await in_thread(
        lambda: rows.update(request=payload, request_digest=digest, level="os", services=["ssh"])
    )
    stage.send(raced)
    await here.challenged(session)
    stage.send(asked)
    await eventually(lambda: stage.injector.chain(session)[-1]["reason"] == "replayed")
    row = await here.row(session)
    for request in (asked, raced):
        row.request = messages.encode(request)
        with pytest.raises(NotBelieved):
            _believed(
                row, bytes(row.challenge or b""), bytes(row.challenge_signature or b""),
                _certificates(row), level="service", services=["web"],
            )  # fmt: skip
    stage.stopped.append("her program compares with what she asked for, which it kept itself")


@pytest.mark.parametrize("stage", [2], indirect=True, ids=["two injectors"])
async def test_recorded_answers(stage: Stage) -> None:
    """An answer that opened a session is played again: to that session, to a new one, to another
    injector, and with its request after a restart."""
    here, first = stage.here, stage.injector
    old = await here.ask(first, level="service", services=["web"])
    answered = await here.answer(old, here.alice)
    await here.reached(old, SessionState.ACTIVE)
    request = bytes((await here.row(old)).request)
    await here.end(old)
    await here.reached(old, SessionState.ENDED)
    stage.send(replay(old, answered))
    await stage.refused_answer(old, "replayed")

    new = await here.ask(first, level="service", services=["web"])
    await here.challenged(new)
    await here.pass_on(new, *answered)
    await here.refused(first, new, R.BAD_SIGNATURE)

    elsewhere = await here.ask(here.injectors[1], level="os", services=["ssh"])
    await here.challenged(elsewhere)
    await here.pass_on(elsewhere, *answered)
    await here.refused(here.injectors[1], elsewhere, R.BAD_SIGNATURE)

    await first.stop()
    await stage.started()
    before = len(first.chain(old))
    stage.say("access-request", request)
    stage.send(replay(old, answered))
    await stage.refused_answer(old, "unknown_session")
    assert len(first.chain(old)) == before + 1  # no challenge, no session
    stage.stopped.append("a nonce and a key for each session: replayed, bad_signature, unknown")


async def test_a_passkey_on_the_portals_own_page(stage: Stage) -> None:
    """alice's access passkey is on the roster; the portal's own page, a page that frames it, and a
    page without her fingerprint get an assertion over the true challenge."""
    here = stage.here
    passkey = Authenticator(origin=ORIGIN)
    member = msgspec.structs.replace(here.alice.member(), passkeys=[passkey.passkey])
    await in_thread(lambda: publish(here.trust, of(member, version=2)))
    await stage.has("roster_version", 2)
    tricks: list[dict[str, object]] = [
        {"origin": "https://patency.example.org"},
        {"origin": "https://patency.example.org", "rp_id": "access.example.org"},
        {"rp_id": "example.org"},
        {"framed": True},
        {"flags": 0x01},
    ]
    for trick in tricks:
        session = await here.ask(stage.injector, level="service", services=["web"])
        signed = challenge.to_sign(await here.challenged(session), here.alice.client_key)
        proof = passkey.sign(signed, **trick)  # type: ignore[arg-type]
        stage.send(Answer(session=session, client_key=here.alice.client_key, proof=proof))
        await here.refused(stage.injector, session, R.BAD_SIGNATURE)
    session = await here.ask(stage.injector, level="os", services=["ssh"])
    signed = challenge.to_sign(await here.challenged(session), here.alice.client_key)
    proof = passkey.sign(signed)  # at the access origin itself, for a shell
    stage.send(Answer(session=session, client_key=here.alice.client_key, proof=proof))
    await here.refused(stage.injector, session, R.COMMAND_LINE_ONLY)
    stage.stopped.append("origin, RP id and verified user, checked by the injector; site's policy")


async def test_a_receipt_of_the_portals_own(stage: Stage) -> None:
    """alice's answer is true; nobody approves. The portal forges the receipt, calls the session
    active, and sends alice's frames, and messages that look like an approval."""
    here = stage.here
    session = await here.ask(stage.injector, level="os", services=["ssh"])
    challenged = await here.challenged(session)
    await here.answer(session, here.alice)
    await here.reached(session, SessionState.PRESENCE)
    impostor = await in_thread(lambda: Impostor(stage.injector.id))
    receipt = json.dumps({"v": 1, "session": session, "approver": 1}).encode()
    forged = {
        "session": session,
        "receipt": base64.b64encode(receipt).decode(),
        "signature": base64.b64encode(impostor.sign(receipt)).decode(),
    }

    def call_it_active() -> None:
        Session.objects.filter(pk=session).update(
            state=SessionState.ACTIVE.value, active_at=clock.now(), approver=1, receipt=receipt
        )

    await in_thread(call_it_active)
    for type, content in (
        ("receipt", forged),
        ("session", {"session": session, "state": "active"}),
        ("approve", {"session": session, "pin": PIN}),
        ("control", {"op": "approve", "session": session, "pin": PIN}),
        ("pin-set", {"approver": 2, "pin": "000000"}),
    ):
        assert await stage.ignored(stage.say(type, content)) == "unknown_type"
    stage.play_open(session, here.alice, challenged, "ssh")
    await stage.caught_up()
    status = await stage.injector.command("status")
    assert (status["sessions"], status["sessions_waiting"]) == (0, 1)
    await stage.injector.command("refuse")
    stage.stopped.append("a person and a PIN at the injector, for which no message stands in")


async def test_answers_that_are_no_answers(stage: Stage) -> None:
    """Signatures by no key, and of another purpose."""
    here = stage.here
    for signature in (b"\0" * 160, here.alice.key.sign(b"patency roster 1\n")):
        session = await here.ask(stage.injector, level="service", services=["web"])
        await here.challenged(session)
        proof = SshProof(signature=signature)
        stage.send(Answer(session=session, client_key=here.alice.client_key, proof=proof))
        await here.refused(stage.injector, session, R.BAD_SIGNATURE)
    stage.stopped.append("bad_signature")
