"""The seal: whoever carries a frame can neither read nor change it (R-ACC-5)."""

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.wire.frames import HEADER, FrameError, FrameType, Header
from agent.wire.seal import Role, Seal, SealError, derive

SESSION = bytes(range(16))
BINDING = bytes(32)


def pair(session: bytes = SESSION, binding: bytes = BINDING) -> tuple[Seal, Seal]:
    """The client's and the device's end."""
    keys = {role: X25519PrivateKey.generate() for role in Role}
    seals = {
        role: derive(
            private=keys[role],
            peer=keys[role.peer].public_key().public_bytes_raw(),
            binding=binding,
            session=session,
            role=role,
        )
        for role in Role
    }
    return seals[Role.CLIENT], seals[Role.DEVICE]


def header(**changes: object) -> Header:
    fields: dict[str, object] = {
        "type": FrameType.DATA, "session": SESSION, "stream": 7, "number": 3, "offset": 96,
    } | changes  # fmt: skip
    return Header(**fields)  # type: ignore[arg-type]


@given(st.binary(max_size=500))
@settings(max_examples=30)
def test_each_end_opens_what_the_other_closed(text: bytes) -> None:
    client, device = pair()
    for sender, receiver in ((client, device), (device, client)):
        frame = sender.close(header(), text)
        assert receiver.open(frame) == (header(), text)
        if len(text) > 8:
            assert text not in frame


def test_the_same_frame_seals_to_the_same_bytes() -> None:
    client, _ = pair()
    assert client.close(header(), b"x") == client.close(header(), bytearray(b"x"))


def test_every_changed_bit_is_found() -> None:
    client, device = pair()
    frame = client.close(header(), b"volume low")
    for at in range(len(frame) * 8):
        changed = bytearray(frame)
        changed[at // 8] ^= 1 << at % 8
        with pytest.raises((SealError, FrameError)):
            device.open(bytes(changed))


def test_a_frame_is_bound_to_its_place() -> None:
    client, device = pair()
    frame = client.close(header(), b"data")
    for changes in ({"stream": 8}, {"number": 4}, {"offset": 97}, {"type": FrameType.EOF}):
        with pytest.raises(SealError):
            device.open(header(**changes).pack() + frame[HEADER.size :])
    with pytest.raises(SealError, match="another session"):
        device.open(header(session=bytes(16)).pack() + frame[HEADER.size :])


def test_a_frame_does_not_come_back_to_its_sender() -> None:
    client, _ = pair()
    with pytest.raises(SealError):
        client.open(client.close(header(), b"data"))


def test_the_binding_and_the_session_change_the_keys() -> None:
    mine, theirs = X25519PrivateKey.generate(), X25519PrivateKey.generate()

    def seal(role: Role, binding: bytes, session: bytes) -> Seal:
        private, peer = (mine, theirs) if role is Role.CLIENT else (theirs, mine)
        return derive(
            private=private,
            peer=peer.public_key().public_bytes_raw(),
            binding=binding,
            session=session,
            role=role,
        )

    frame = seal(Role.CLIENT, BINDING, SESSION).close(header(), b"data")
    assert seal(Role.DEVICE, BINDING, SESSION).open(frame)
    with pytest.raises(SealError):
        seal(Role.DEVICE, b"\x01" * 32, SESSION).open(frame)
    other = seal(Role.DEVICE, BINDING, bytes(16))
    other.session = SESSION
    with pytest.raises(SealError):
        other.open(frame)


@pytest.mark.parametrize("peer", [b"", bytes(31), bytes(33), bytes(32), b"\x01" + bytes(31)])
def test_unusable_keys_are_refused(peer: bytes) -> None:
    """Wrong lengths, and points of small order, whose shared secret anybody knows."""
    with pytest.raises(SealError):
        derive(
            private=X25519PrivateKey.generate(),
            peer=peer,
            binding=BINDING,
            session=SESSION,
            role=Role.CLIENT,
        )
