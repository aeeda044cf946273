"""The frozen byte vectors: this build makes them again, and reads them back (R-CON-8)."""

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from agent.wire import challenge, messages, roster, sshsig
from tests.agent.wire import make_vectors, samples


def load(name: str) -> Any:
    return json.loads((make_vectors.FOLDER / f"{name}.json").read_text())


@pytest.mark.parametrize("name", make_vectors.ALL)
def test_this_build_makes_the_frozen_bytes(name: str) -> None:
    assert json.loads(json.dumps(make_vectors.ALL[name]())) == load(name)


def test_frozen_messages_are_read() -> None:
    """A message of an agent installed years ago stays readable."""
    them = [*samples.FIRST_UP, *samples.FIRST_DOWN, *samples.SERVERS_DOWN]
    them += [*samples.IDENTITY_UP, *samples.IDENTITY_DOWN]
    frozen = [*load("messages"), *load("servers"), *load("identity")]
    for vector, expected in zip(frozen, them, strict=True):
        decode = messages.decode_up if vector["direction"] == "up" else messages.decode_down
        assert decode(vector["type"], vector["version"], vector["payload"].encode()) == expected


def test_frozen_frames_are_opened() -> None:
    client, device = make_vectors.seals()
    for vector in load("seal")["frames"]:
        receiver = device if vector["sender"] == "client" else client
        header, text = receiver.open(bytes.fromhex(vector["frame"]))
        assert text.hex() == vector["plaintext"]
        assert (header.type.name, header.stream, header.number, header.offset) == (
            vector["type"], vector["stream"], vector["number"], vector["offset"],
        )  # fmt: skip


def test_frozen_signatures_verify() -> None:
    vector = load("challenge")
    data = vector["challenge"].encode()
    assert challenge.decode(data).specialist == "noor"
    signed = challenge.to_sign(data, bytes.fromhex(vector["client_key"]))
    signer = sshsig.verify(base64.b64decode(vector["sshsig"]), signed)
    assert signer == sshsig.public_blob(bytes.fromhex(vector["specialist_public"]))
    trust = load("trust")
    members = roster.verify(
        trust["roster"].encode(),
        bytes.fromhex(trust["roster_signature"]),
        trust_key=Ed25519PublicKey.from_public_bytes(bytes.fromhex(trust["trust_public"])),
        version=1,
        now=samples.AT,
    ).members
    assert members[0].keys == [signer]
