"""The browser client's multiplexer against the device's: the frozen conversations, random ones over
links that break, and frame by frame beside Python's own client end (R-ACC-5, R-CON-5)."""

import random
import struct
from typing import Any

import pytest

from agent.wire.frames import FrameType, parse
from agent.wire.mux import Data, Mux, MuxError, ResetCode
from agent.wire.mux_stream import FIRST_RESUME
from agent.wire.seal import Role
from tests.agent.wire import make_vectors
from tests.agent.wire.muxes import Rogue, seals
from tests.agent.wire.test_mux_resume import LEGS, End, Legs, act
from tests.agent.wire.test_vectors import load
from tests.scale import scaled
from tests.system.web.engines import Engine, JsMux, ThrownError

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

UP, DOWN = b"u" * 32, b"d" * 32  # the keys of tests.agent.wire.muxes


def client(engine: Engine, **options: int) -> JsMux:
    return JsMux(engine, send=DOWN, receive=UP, **options)


# --- the frozen conversations -------------------------------------------------------------------


def replay(engine: Engine, name: str, act: Any) -> None:
    """The client's frames are the frozen ones, and the device's give the frozen events."""
    mux = client_of_the_vectors(engine)
    made: list[str] = []
    for at, step in enumerate(load(name)):
        act(mux, at)
        if step["from"] == "client":
            frame = mux.next_frame()
            assert frame is not None
            assert frame.hex() == step["frame"], at
            made.append(frame.hex())
        elif not step.get("lost"):
            assert heard(mux, bytes.fromhex(step["frame"])) == step.get("events", []), at
    assert made


def client_of_the_vectors(engine: Engine) -> JsMux:
    ours, _theirs = make_vectors.seals()
    vector = load("seal")
    keys = [_raw_key(vector, sender) for sender in ("client", "device")]
    return JsMux(engine, send=keys[0], receive=keys[1], session=ours.session, window=1000)


def _raw_key(vector: dict[str, Any], sender: str) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    peer = X25519PublicKey.from_public_bytes(bytes.fromhex(vector["device_public"]))
    shared = make_vectors.CLIENT_KEY.exchange(peer)
    info = b"patency seal 1 " + sender.encode() + bytes.fromhex(vector["session"])
    return HKDF(SHA256(), 32, bytes.fromhex(vector["binding"]), info).derive(shared)


def heard(mux: JsMux, frame: bytes) -> list[str]:
    events = mux.receive(frame)
    for event in events:
        if isinstance(event, Data):
            mux.consumed(event.stream, len(event.data))
    return [repr(event) for event in events]


def test_the_frozen_conversation(engine: Engine) -> None:
    def act(mux: JsMux, at: int) -> None:
        if at == 0:
            mux.open(65537, "ssh")
            mux.open(65538, "bundle", bulk=True)
        elif at == 4:
            mux.send(65537, bytes(range(256)) * 3)
        elif at == steps["EOF"]:
            mux.end(65537)

    steps = _firsts("mux")
    replay(engine, "mux", act)


def _firsts(name: str) -> dict[str, int]:
    """Of each type of frame, the first step in which the client sends it."""
    found: dict[str, int] = {}
    for at, step in enumerate(load(name)):
        if step["from"] == "client":
            found.setdefault(parse(bytes.fromhex(step["frame"])).type.name, at)
    return found


def test_the_frozen_conversation_over_a_pipe_that_breaks(engine: Engine) -> None:
    transcript = load("resume")
    lost = [at for at, step in enumerate(transcript) if step["from"] == "client" and step["lost"]]
    again = [at for at, step in enumerate(transcript) if step["from"] == "client" and step["again"]]
    first_data = _firsts("resume")["DATA"]
    resumed = next(at for at in range(lost[-1] + 1, len(transcript)))

    def act(mux: JsMux, at: int) -> None:
        if at == 0:
            mux.open(65537, "ssh")
            mux.open(65538, "web")
        elif at == lost[0]:
            mux.open(65539, "ssh")
        elif at == again[0]:
            mux.resume()
        elif at == min(first_data, lost[1]):
            mux.send(65537, bytes(range(200)) * 3)
            mux.end(65537)
            mux.reset(65538)
        elif at == _after_losses(transcript, resumed):
            mux.resume()

    replay(engine, "resume", act)


def _after_losses(transcript: list[dict[str, Any]], at: int) -> int:
    """The first step after the second loss that is not lost itself."""
    return next(n for n in range(at, len(transcript)) if not transcript[n]["lost"])


# --- random ones --------------------------------------------------------------------------------


class Device(End):
    """A question about a stream whose OPEN was lost on the device's own link is no news to it."""

    opened: set[int]

    def take(self, frame: bytes) -> None:
        header = parse(frame)
        known = header.stream in self.mux.streams or header.stream in self.opened
        if header.type is FrameType.OPEN:
            self.opened.add(header.stream)
        elif not known:
            try:
                assert self.mux.receive(frame) == []
            except MuxError as error:
                assert "never opened" in str(error)
            return
        super().take(frame)


def legs(engine: Engine, window: int) -> Legs:
    made = Legs(window=window, max_frame=1024)
    device = made.ends["device"] = Device(made.ends["device"].mux, False)
    device.opened = set()
    made.ends["client"] = End(client(engine, window=window), True)  # type: ignore[arg-type]
    return made


def test_nothing_is_lost_doubled_or_disordered_whatever_breaks(engine: Engine) -> None:
    names = ["open", "say", "say", "use", "use", "end", "send", "send", "carry", "carry", "carry",
             "cut", "heal", "reset", "accept"]  # fmt: skip
    cuts = 0
    for seed in range(scaled(400, at_least=20)):
        pick = random.Random(seed)
        made = legs(engine, pick.randrange(64, 4096))
        for _ in range(150):
            name, leg = pick.choice(names), pick.choice(LEGS)
            cuts += name == "cut" and made.up[leg]
            act(made, name, leg, pick.randrange(1, 4), pick.randrange(1, 4000))
        made.finish()
        made.ends["client"].mux.close()  # type: ignore[attr-defined]
    assert cuts > scaled(400, at_least=20)


def test_hundreds_of_cuts_in_one_session(engine: Engine) -> None:
    pick, made, cuts = random.Random(11), legs(engine, 4096), 0
    names, weights = (
        ["say", "use", "send", "carry", "cut", "heal", "accept"],
        [6, 6, 8, 16, 1, 3, 3],
    )
    for count in range(scaled(40_000, at_least=4_000)):
        if count % 100 == 0:
            made.settle()
            for end in made.ends.values():
                end.mux.end(max(1, made.next_stream - 2))
            act(made, "open", "client", 0, count // 100)
        [name] = pick.choices(names, weights)
        leg, stream = pick.choice(LEGS), max(1, made.next_stream - pick.randrange(4))
        cuts += name == "cut" and made.up[leg]
        act(made, name, leg, stream, pick.randrange(1, 3000))
    made.finish()
    assert cuts > scaled(400, at_least=40)


# --- beside Python's client ---------------------------------------------------------------------


class Both:
    """The same done to both clients: each must do the same, byte for byte."""

    def __init__(self, engine: Engine, window: int) -> None:
        ours, _theirs = seals()
        self.python = Mux(ours, window=window)
        self.js = client(engine, window=window)

    def do(self, method: str, *args: Any) -> Any:
        found = [self._try(mux, method, *args) for mux in (self.python, self.js)]
        assert found[0] == found[1], (method, args)
        return found[0]

    @staticmethod
    def _try(mux: Any, method: str, *args: Any) -> Any:
        try:
            return getattr(mux, method)(*args)
        except MuxError as error:
            return error.code
        except (RuntimeError, ThrownError) as error:
            return type(error).__name__

    def flush(self) -> None:
        while self.do("next_frame") is not None:
            pass
        assert self.python.streams == self.js.streams
        assert self.python.unanswered == self.js.unanswered


def payload(pick: random.Random, kind: FrameType, both: Both) -> bytes:
    """Often what the frame should hold, often not quite, now and then anything."""
    if pick.random() < 0.05:
        return pick.randbytes(pick.randrange(40))
    match kind:
        case FrameType.ACCEPT:
            return struct.pack(">I", pick.choice([1, 100, 4096, 4096, 2**24, 2**24 + 1, 0]))
        case FrameType.CREDIT:
            acked = pick.choice([0, 0, 10, 100, pick.randrange(3000), 2**63])
            return struct.pack(">QI", acked, pick.choice([0, 4096, 4096, 2**20, 2**25]))
        case FrameType.RESET:
            return struct.pack(">H", pick.choice([*ResetCode, 99]))
        case FrameType.RESUME:
            asked = pick.choice([0, FIRST_RESUME, FIRST_RESUME + pick.randrange(4)])
            return struct.pack(">BQQ", pick.choice([0, 1, 1, 2, 3]), pick.randrange(5), asked)
        case FrameType.DATA:
            return pick.randbytes(pick.choice([0, 1, 10, 100]))
        case _:
            return b""


def test_both_clients_do_the_same_whatever_a_device_sends(engine: Engine) -> None:
    """A device that holds the right key and obeys nothing."""
    kinds = [*FrameType, FrameType.DATA, FrameType.CREDIT, FrameType.ACCEPT]
    codes: set[Any] = set()
    for seed in range(scaled(300, at_least=25)):
        pick, rogue = random.Random(seed), Rogue(Role.DEVICE)
        both, placed, resumes = Both(engine, 500), {1: 0, 2: 0}, {1: FIRST_RESUME, 2: FIRST_RESUME}
        both.do("open", 1, "ssh")
        both.do("open", 2, "web", True)
        both.flush()
        for stream in (1, 2):
            both.do(
                "receive", rogue.frame(FrameType.ACCEPT, struct.pack(">I", 3000), stream=stream)
            )
        for _ in range(60):
            stream = pick.choice((1, 1, 2))
            match pick.randrange(12):
                case 0:
                    both.do("send", stream, pick.randbytes(pick.randrange(400)))
                case 1:
                    both.do("consumed", stream, pick.choice([0, 1, 10, 100]))
                case 2 if pick.random() < 0.2:
                    both.do("end", stream)
                case 3:
                    both.do("ask", stream) if pick.random() < 0.5 else both.do("resume")
                case 4 if pick.random() < 0.1:
                    both.do("reset", stream)
                case 5:
                    both.flush()
                case _:
                    kind = pick.choice(kinds)
                    data = payload(pick, kind, both)
                    number = None
                    if kind is FrameType.RESUME:
                        number = resumes[stream] = resumes[stream] + pick.choice([0, 1, 1, 5])
                    elif pick.random() < 0.1:
                        number = pick.choice([0, 1, 7, 2**53, FIRST_RESUME, 2**64 - 1])
                    is_placed = kind in (FrameType.DATA, FrameType.EOF)
                    offset = placed[stream] if is_placed and pick.random() < 0.97 else 0
                    frame = rogue.frame(kind, data, stream=stream, offset=offset, number=number)
                    found = both.do("receive", frame)
                    codes.add(found if isinstance(found, ResetCode) else _kinds(found))
                    if isinstance(found, list) and any(isinstance(e, Data) for e in found):
                        placed[stream] += len(data)
        both.flush()
        both.js.close()
    seen = {name for each in codes if isinstance(each, tuple) for name in each}
    assert seen >= {"Data", "Credited", "Ended", "Reset"}
    assert ResetCode.REPLAY in codes


def _kinds(events: Any) -> Any:
    return tuple(type(event).__name__ for event in events) if isinstance(events, list) else events


def test_frames_that_the_device_did_not_seal_change_nothing(engine: Engine) -> None:
    both, pick = Both(engine, 500), random.Random(6)
    both.do("open", 1, "ssh")
    both.flush()
    rogue, theirs = Rogue(Role.DEVICE), Rogue(Role.CLIENT)
    accept = rogue.frame(FrameType.ACCEPT, struct.pack(">I", 3000))
    for _ in range(scaled(2000, at_least=200)):
        at = pick.randrange(len(accept))
        bent = accept[:at] + bytes([accept[at] ^ 1 << pick.randrange(8)]) + accept[at + 1 :]
        assert both.do("receive", bent) in ([], ResetCode.SEAL, ResetCode.PROTOCOL)
    assert both.do("receive", theirs.frame(FrameType.DATA, b"own")) is ResetCode.SEAL
    assert both.do("receive", accept) != []
    both.do("send", 1, b"goes on")
    both.flush()


def test_a_device_opens_nothing_at_a_client(engine: Engine) -> None:
    both, rogue = Both(engine, 500), Rogue(Role.DEVICE)
    assert both.do("receive", rogue.frame(FrameType.OPEN, b"\0\0\0\x10\0ssh")) == []
    assert both.js.streams == ()
