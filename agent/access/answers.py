"""Whether an answer is the one that was asked for (R-ACC-4). Pure."""

from agent.access import conditions, passkeys
from agent.access.conditions import Facts
from agent.access.effects import Now
from agent.access.session import Session
from agent.wire import challenge as challenges
from agent.wire import seal, sshsig
from agent.wire.catalogue import ClientKind, ClinicalState, SessionReason, SessionState
from agent.wire.messages import Answer, PasskeyProof


def wrong(
    now: Now, it: Session, answer: Answer, facts: Facts, clinical: ClinicalState
) -> SessionReason | None:
    """None, with the session's seal made, its signer and the use of a passkey known; or why not."""
    if it.state is not SessionState.CHALLENGED or it.private is None:
        return SessionReason.BAD_SIGNATURE  # there is no challenge that it could answer
    if now.boot_s >= it.deadline:
        return SessionReason.LATE
    if (no := conditions.still_not(it.request, facts, now.wall_ms)) is not None:
        return no
    if (no := _not_proved(it, answer, facts)) is not None:
        return no
    # A person at the injector may yet say that no patient is connected; but nobody is asked to
    # look at a panel between armed and complete.
    if clinical.critical or (clinical.in_use and not it.presence):
        return SessionReason.IN_USE
    try:
        it.seal = seal.derive(
            private=it.private,
            peer=answer.client_key,
            binding=challenges.digest(it.challenge),
            session=bytes.fromhex(it.id),
            role=seal.Role.DEVICE,
        )
    except seal.SealError:
        return SessionReason.BAD_SIGNATURE
    it.private = None
    return None


def _not_proved(it: Session, answer: Answer, facts: Facts) -> SessionReason | None:
    """What the proof says of itself counts, not where the request said it would come from."""
    signed = challenges.to_sign(it.challenge, answer.client_key)
    if isinstance(answer.proof, PasskeyProof):
        if not facts.policy.takes(ClientKind.BROWSER, it.level):
            return SessionReason.COMMAND_LINE_ONLY
        return _no_passkey(it, answer.proof, signed, facts)
    try:
        signer = sshsig.verify(answer.proof.signature, signed)
    except sshsig.SignatureError:
        return SessionReason.BAD_SIGNATURE
    if (no := _not_theirs(it, signer, facts)) is not None:
        return no
    it.signer = signer
    return None


def _no_passkey(
    it: Session, proof: PasskeyProof, signed: bytes, facts: Facts
) -> SessionReason | None:
    if (no := _not_theirs(it, proof.id, facts)) is not None:
        return no
    who = conditions.member(it.request, facts)
    passkey = who.passkey(proof.id) if who is not None else None
    if passkey is None or facts.access_origin is None:
        return SessionReason.BAD_SIGNATURE
    try:
        count = passkeys.verify(
            proof,
            passkey,
            origin=facts.access_origin,
            challenge=signed,
            counter=facts.passkey_uses.get(proof.id, 0),
        )
    except passkeys.PasskeyError:
        return SessionReason.BAD_SIGNATURE
    it.signer, it.passkey_use = proof.id, count
    return None


def _not_theirs(it: Session, signer: bytes, facts: Facts) -> SessionReason | None:
    """A good signature, but by a key that the roster does not give this specialist."""
    who = conditions.member(it.request, facts)
    if who is not None and who.signs_with(signer):
        return None
    members = facts.roster.members if facts.roster else []
    someone_else = any(other.signs_with(signer) for other in members)
    return SessionReason.BAD_SIGNATURE if someone_else else SessionReason.NOT_ROSTERED
