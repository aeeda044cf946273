"""What an access passkey signs, and what else is shown in its place (R-ACC-4)."""

from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.access import passkeys
from agent.access.passkeys import PasskeyError
from agent.access.policy import Policy
from agent.wire import challenge as challenges
from agent.wire.catalogue import ClientKind, Level, SessionReason, SessionState
from agent.wire.messages import Answer, PasskeyProof
from tests.agent.access.authenticator import ORIGIN, USER_PRESENT, USER_VERIFIED, Authenticator
from tests.agent.access.simulator import Bench

CHALLENGE = bytes(range(32))
R, S = SessionReason, SessionState


def verify(it: Authenticator, proof: PasskeyProof, counter: int = 0) -> int:
    return passkeys.verify(proof, it.passkey, origin=ORIGIN, challenge=CHALLENGE, counter=counter)


@pytest.mark.parametrize("kind", ["ES256", "EdDSA"])
def test_a_passkey_of_the_access_origin_is_believed(kind: str) -> None:
    it = Authenticator() if kind == "ES256" else Authenticator(key=Ed25519PrivateKey.generate())
    assert verify(it, it.sign(CHALLENGE)) == 1
    assert verify(it, it.sign(CHALLENGE), counter=1) == 2


@pytest.mark.parametrize(
    "trick",
    [
        {"challenge": bytes(32)},  # another challenge
        {"origin": "https://portal.example.org"},  # a page of the portal asked
        {"origin": "https://access.example.org:8443"},
        {"origin": "http://access.example.org"},
        {"origin": ORIGIN + ".evil.example"},
        {"rp_id": "example.org"},  # a passkey of the parent domain
        {"rp_id": "portal.example.org"},
        {"type": "webauthn.create"},
        {"flags": USER_PRESENT},  # nobody was verified
        {"flags": USER_VERIFIED},  # nobody was there
        {"flags": 0},
        {"framed": True},  # the access page inside the portal's
    ],
)
def test_what_is_not_the_owner_at_the_access_origin_is_refused(trick: dict[str, Any]) -> None:
    it = Authenticator()
    with pytest.raises(PasskeyError):
        verify(it, it.sign(**{"challenge": CHALLENGE, **trick}))


def test_another_passkeys_signature_is_refused() -> None:
    mine, theirs = Authenticator(), Authenticator()
    with pytest.raises(PasskeyError):
        verify(mine, theirs.sign(CHALLENGE))


def test_every_byte_counts() -> None:
    it = Authenticator()
    good = it.sign(CHALLENGE)
    for name in ("authenticator_data", "client_data", "signature"):
        data = getattr(good, name)
        for at in range(0, len(data), 5):
            changed = bytearray(data)
            changed[at] ^= 0x10
            with pytest.raises(PasskeyError):
                verify(it, msgspec.structs.replace(good, **{name: bytes(changed)}))


def test_a_counter_that_does_not_go_up_means_two_of_it() -> None:
    it = Authenticator()
    first, second = it.sign(CHALLENGE), it.sign(CHALLENGE)
    assert verify(it, second, counter=1) == 2
    for late in (first, second):
        with pytest.raises(PasskeyError, match="counter"):
            verify(it, late, counter=2)


def test_a_passkey_that_does_not_count_may_be_used_again() -> None:
    """Passkeys that live on several devices keep their counter at 0."""
    it = Authenticator(counter=-1)
    proof = it.sign(CHALLENGE)
    assert verify(it, proof) == 0
    assert verify(it, proof) == 0


@pytest.mark.parametrize("key", [b"", b"\xa0", b"\xff" * 40, b"\xa1\x03\x39\x01\x00" + bytes(30)])
def test_a_rostered_key_of_another_kind_lets_nobody_in(key: bytes) -> None:
    it = Authenticator()
    bent = msgspec.structs.replace(it.passkey, key=key)
    with pytest.raises(PasskeyError):
        passkeys.verify(it.sign(CHALLENGE), bent, origin=ORIGIN, challenge=CHALLENGE, counter=0)


# --- at the desk --------------------------------------------------------------------------------


def bench(**policy: Any) -> tuple[Bench, Authenticator]:
    """alice has a passkey as well as her key; the injector knows the access origin."""
    it = Bench(policy=Policy(**policy))
    authenticator = Authenticator()
    it.facts.access_origin = ORIGIN
    it.roster(it.alice.member(passkeys=[authenticator.passkey]), it.bob.member())
    return it, authenticator


def answer(it: Bench, session: str, authenticator: Authenticator, **trick: Any) -> None:
    signed = challenges.to_sign(it.challenge(session), it.alice.client_key)
    proof = authenticator.sign(signed, **trick)
    it.answer(session, Answer(session=session, client_key=it.alice.client_key, proof=proof))


def browser(it: Bench, **changes: Any) -> str:
    return it.request(
        **{"client": ClientKind.BROWSER, "level": Level.SERVICE, "services": ["web"], **changes}
    )


def test_a_passkey_opens_a_session_at_service() -> None:
    it, authenticator = bench()
    session = browser(it)
    answer(it, session, authenticator)
    assert it.state(session) is S.ACTIVE
    assert it.facts.passkey_uses == {authenticator.id: 1}


def test_os_in_the_browser_is_the_sites_choice() -> None:
    """R-ACC-6: refused when asked for, and again when a passkey answers what said otherwise."""
    it, authenticator = bench()
    asked = browser(it, level=Level.OS, services=["ssh"])
    assert it.updates(asked) == [(S.REFUSED, R.COMMAND_LINE_ONLY)]
    session = it.request()  # says that it will answer from the command line
    answer(it, session, authenticator)
    assert it.updates(session)[-1] == (S.REFUSED, R.COMMAND_LINE_ONLY)
    it, authenticator = bench(browser_os=True)
    session = browser(it, level=Level.OS, services=["ssh"])
    answer(it, session, authenticator)
    assert it.state(session) is S.PRESENCE


def test_a_site_may_take_the_command_line_only() -> None:
    it, authenticator = bench(command_line_only=True, browser_os=True)
    for level, services in ((Level.SERVICE, ["web"]), (Level.OS, ["ssh"])):
        asked = browser(it, level=level, services=services)
        assert it.updates(asked) == [(S.REFUSED, R.COMMAND_LINE_ONLY)]
    session = it.request(level=Level.SERVICE, services=["web"])
    answer(it, session, authenticator)
    assert it.updates(session)[-1] == (S.REFUSED, R.COMMAND_LINE_ONLY)
    it.active(level=Level.SERVICE, services=["web"])


def test_the_site_changes_its_mind_about_the_browser() -> None:
    it, authenticator = bench()
    session = it.request(level=Level.SERVICE, services=["web"])
    answer(it, session, authenticator)
    it.policy(command_line_only=True)
    assert it.updates(session)[-1] == (S.ENDED, R.COMMAND_LINE_ONLY)


def test_a_portal_of_its_own_making_gets_nothing_from_a_passkey() -> None:
    """THREATS: the portal swaps the challenge at sign-in; the passkey signs for another origin."""
    for trick in (
        {"origin": "https://portal.example.org"},
        {"rp_id": "example.org"},
        {"flags": USER_PRESENT},
    ):
        it, authenticator = bench()
        session = browser(it)
        answer(it, session, authenticator, **trick)
        assert it.updates(session)[-1] == (S.REFUSED, R.BAD_SIGNATURE)


def test_somebody_elses_passkey_is_refused() -> None:
    it, authenticator = bench()
    stranger = Authenticator(id=b"credential-9999!")
    session = browser(it)
    answer(it, session, stranger)
    assert it.updates(session)[-1] == (S.REFUSED, R.NOT_ROSTERED)
    session = browser(it, specialist="bob")
    answer(it, session, authenticator)
    assert it.updates(session)[-1] == (S.REFUSED, R.BAD_SIGNATURE)


def test_without_an_access_origin_no_passkey_is_taken() -> None:
    it, authenticator = bench()
    it.facts.access_origin = None
    session = browser(it)
    answer(it, session, authenticator)
    assert it.updates(session)[-1] == (S.REFUSED, R.BAD_SIGNATURE)


def test_a_passkey_taken_off_the_roster_is_out() -> None:
    it, authenticator = bench()
    session = browser(it)
    answer(it, session, authenticator)
    it.roster(it.alice.member(), version=3)
    assert it.updates(session)[-1] == (S.ENDED, R.NOT_ROSTERED)
