"""The browser client's frames, seals and challenges against Python's: the frozen vectors, and
10,000 generated cases each way (R-ACC-5; issue "Remote access for people", done when 3)."""

import json
import random
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from agent.wire import challenge
from agent.wire.catalogue import Level
from agent.wire.frames import MAX_DATA, FrameType, Header
from agent.wire.seal import Role, SealError, derive
from tests.agent.wire import make_vectors
from tests.agent.wire.test_vectors import load
from tests.system.web.engines import Engine, ThrownError

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

SESSIONS = 500
FRAMES = 10  # of each session, each way: 10,000 in all


def public(key: X25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def test_the_frozen_seals(engine: Engine) -> None:
    vector = load("seal")
    made = engine.call("seals", sessions=[_frozen(vector, role) for role in Role])
    for role, found in zip(Role, made, strict=True):
        own = [it for it in vector["frames"] if it["sender"] == role.value]
        others = [it for it in vector["frames"] if it["sender"] != role.value]
        assert found["closed"] == [it["frame"] for it in own]
        assert found["opened"] == [
            [FrameType[it["type"]], it["stream"], str(it["number"]), str(it["offset"]),
             it["plaintext"]]
            for it in others
        ]  # fmt: skip


def _frozen(vector: dict[str, Any], role: Role) -> dict[str, Any]:
    return {
        "private": vector[f"{role.value}_private"],
        "peer": vector[f"{role.peer.value}_public"],
        "binding": vector["binding"],
        "session": vector["session"],
        "role": role.value,
        "close": [
            {**it, "type": FrameType[it["type"]], "session": vector["session"],
             "number": str(it["number"]), "offset": str(it["offset"])}
            for it in vector["frames"] if it["sender"] == role.value
        ],
        "open": [it["frame"] for it in vector["frames"] if it["sender"] != role.value],
    }  # fmt: skip


def test_ten_thousand_frames_sealed_on_either_side_and_opened_on_the_other(engine: Engine) -> None:
    """Bit for bit the same frames from both, and each opens what the other sealed."""
    pick = random.Random(4)
    for _ in range(0, SESSIONS, 50):
        batch = [_session(pick) for _ in range(50)]
        asked = [{name: it[name] for name in ("private", "peer", "binding", "session", "role",
                                              "close", "open")} for it in batch]  # fmt: skip
        for it, found in zip(batch, engine.call("seals", sessions=asked), strict=True):
            assert found["closed"] == it["closed"]
            assert found["opened"] == it["opened"]
            for each, frame in zip(it["close"], found["closed"], strict=True):
                header, plain = it["theirs"].open(bytes.fromhex(frame))
                assert plain.hex() == each["plaintext"]
                assert str(header.number) == each["number"]


def _session(pick: random.Random) -> dict[str, Any]:
    """A session with what JavaScript must seal and open; every tenth frame to open is bent."""
    ours, theirs = (X25519PrivateKey.from_private_bytes(pick.randbytes(32)) for _ in range(2))
    session, binding, role = pick.randbytes(16), pick.randbytes(32), pick.choice(list(Role))
    mine = derive(private=ours, peer=public(theirs), binding=binding, session=session, role=role)
    other = derive(
        private=theirs, peer=public(ours), binding=binding, session=session, role=role.peer
    )
    close, closed, frames, opened = [], [], [], []
    for count in range(FRAMES):
        header, plain = _header(pick, session), pick.randbytes(_size(pick))
        close.append(
            {"type": header.type, "session": session.hex(), "stream": header.stream,
             "number": str(header.number), "offset": str(header.offset), "plaintext": plain.hex()}
        )  # fmt: skip
        closed.append(mine.close(header, plain).hex())
        frame = bytearray(other.close(header, plain))
        result: Any = [header.type, header.stream, str(header.number), str(header.offset),
                       plain.hex()]  # fmt: skip
        if count == 0:  # a bit of the offset or of what is sealed
            frame[pick.randrange(32, len(frame))] ^= 1 << pick.randrange(8)
            with pytest.raises(SealError):
                mine.open(bytes(frame))
            result = "SealError"
        frames.append(frame.hex())
        opened.append(result)
    return {
        "private": ours.private_bytes_raw().hex(), "peer": public(theirs).hex(),
        "binding": binding.hex(), "session": session.hex(), "role": role.value,
        "close": close, "closed": closed, "open": frames, "opened": opened, "theirs": other,
    }  # fmt: skip


def _size(pick: random.Random) -> int:
    return pick.choice([0, 1, pick.randrange(64), pick.randrange(1024), pick.randrange(1024)]) if (
        pick.randrange(100)
    ) else MAX_DATA  # fmt: skip


def _header(pick: random.Random, session: bytes) -> Header:
    return Header(
        pick.choice(list(FrameType)), session, pick.getrandbits(32),
        pick.getrandbits(pick.choice([8, 32, 54, 64])), pick.getrandbits(pick.choice([8, 54, 64])),
    )  # fmt: skip


def test_a_key_of_the_other_end_that_gives_nothing_is_refused(engine: Engine) -> None:
    one = _frozen(load("seal"), Role.CLIENT)
    for peer in (bytes(32), b"\x01" + bytes(31), bytes(31)):
        with pytest.raises(Exception, match="SealError"):
            engine.call("seals", sessions=[{**one, "peer": peer.hex()}])


def test_the_frozen_challenge(engine: Engine) -> None:
    vector = load("challenge")
    [found] = engine.call("challenges", challenges=[
        {"challenge": vector["challenge"].encode().hex(), "client_key": vector["client_key"],
         "code": True}
    ])  # fmt: skip
    assert found["digest"] == vector["digest"]
    assert found["toSign"] == vector["to_sign"]
    assert found["code"] == vector["code"]
    terms = challenge.decode(vector["challenge"].encode())
    assert found["terms"]["specialist"] == terms.specialist
    assert found["terms"]["services"] == terms.services
    assert found["terms"]["key"] == terms.key.hex()


def test_generated_challenges(engine: Engine) -> None:
    """Both read the same ones, refuse the same ones, and compute the same digests and codes."""
    pick = random.Random(5)
    cases = [_challenge(pick) for _ in range(1000)]
    sent = [
        {"challenge": data.hex(), "client_key": key.hex(), "code": count % 50 == 0}
        for count, (data, key) in enumerate(cases)
    ]
    refused = 0
    found = engine.call("challenges", challenges=sent)
    for (data, key), it, asked in zip(cases, found, sent, strict=True):
        assert it["digest"] == challenge.digest(data).hex()
        assert it["toSign"] == challenge.to_sign(data, key).hex()
        if asked["code"]:
            assert it["code"] == challenge.code(data)
        try:
            terms = challenge.decode(data)
        except challenge.ChallengeError:
            refused += 1
            assert it.get("error") == "ChallengeError", data
        else:
            assert it["terms"]["session"] == terms.session
            assert it["terms"]["life_s"] == terms.life_s
            assert it["terms"]["level"] == terms.level.value
    assert 100 < refused < 900


def _challenge(pick: random.Random) -> tuple[bytes, bytes]:
    data = challenge.encode(
        challenge.Terms(
            session=pick.randbytes(16).hex(), request=pick.randbytes(32).hex(),
            device="dev_" + pick.randbytes(pick.randrange(2, 30)).hex(), specialist="noor",
            level=pick.choice(list(Level)),
            services=pick.sample(["ssh", "web", "console"], pick.randrange(1, 4)),
            life_s=pick.randrange(60, 28_801), presence=pick.random() < 0.5,
            boot=pick.randbytes(16).hex(), nonce=pick.randbytes(32).hex(),
            key=public(make_vectors.CLIENT_KEY),
        )
    )  # fmt: skip
    key = pick.randbytes(32)
    if pick.random() < 0.5:
        return data, key
    return pick.choice(BENDS)(data, pick), key


def _with(**changes: Any) -> Any:
    def bend(data: bytes, _pick: random.Random) -> bytes:
        fields = {**json.loads(data), **changes}
        kept = {name: value for name, value in fields.items() if value is not ...}
        return json.dumps(dict(sorted(kept.items())), separators=(",", ":")).encode()

    return bend


def _flip(data: bytes, pick: random.Random) -> bytes:
    at = pick.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << pick.randrange(8)]) + data[at + 1 :]


BENDS: list[Any] = [
    _flip, _flip, _flip,
    _with(extra=1), _with(v=2), _with(v=...), _with(v=True), _with(nonce=...), _with(life_s=59),
    _with(life_s=28_801), _with(life_s=1800.5), _with(life_s="1800"), _with(level="root"),
    _with(services=[]), _with(services=["ssh"] * 9), _with(services=["SSH"]),
    _with(services=["ssh\n"]), _with(services="ssh"), _with(presence=1), _with(presence=None),
    _with(device="short"), _with(specialist=""), _with(specialist="a b"), _with(boot="B0" * 16),
    _with(key="AAAA"), _with(key=None), _with(session=[]),
    lambda data, pick: data + b" ",
    lambda data, pick: b"\xef\xbb\xbf" + data,
    lambda data, pick: data.replace(b'{"boot"', b'{ "boot"'),
    lambda data, pick: data[:-1] + b',"v":1}',
    lambda data, pick: data.replace(b'"v":1', b'"v":1.0'),
    lambda data, pick: data.replace(b'"noor"', b'"\\u006eoor"'),
    lambda data, pick: data.replace(b"=", b""),
    lambda data, pick: json.dumps(dict(reversed(json.loads(data).items()))).encode(),
    lambda data, pick: data[: pick.randrange(len(data))],
    lambda data, pick: b"[" + data + b"]",
    lambda data, pick: b"null",
    lambda data, pick: data.replace(b"noor", b"no\xffr"),
]  # fmt: skip


def test_pieces_of_a_terminal(engine: Engine) -> None:
    """As docs/protocol.md has them, cut anywhere on the way."""
    typed = bytes(range(256)) * 70
    parts = [typed[at : at + 16_384] for at in range(0, len(typed), 16_384)]
    sent = b"\x01\x00\x03abc" + b"\x01\x40\x00" + bytes(16_384) + b"\x03\x00\x01\x82"
    for step in (100, 777, 5000, len(sent)):
        found = engine.call(
            "pieces", typed=typed.hex(), size=[24, 5000],
            received=[sent[at : at + step].hex() for at in range(0, len(sent), step)],
        )  # fmt: skip
        made = b"".join(b"\x01" + len(part).to_bytes(2, "big") + part for part in parts)
        assert found["typed"] == made.hex()
        assert found["size"] == "020004001803e8"
        assert found["received"] == [b"abc".hex(), bytes(16_384).hex(), 130]
    for bad in ("02000400180050", "010000", "014001", "030002", "040001", "0300018203", "000001"):
        with pytest.raises(ThrownError, match="PieceError"):
            engine.call("pieces", typed="", size=[1, 1], received=[bad])
