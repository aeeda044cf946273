"""Frames: the portal carries all of them, and can read, make and change none (R-ACC-5, R-ACC-8)."""

import asyncio
import os

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from agent.wire import frames, seal
from agent.wire.frames import FrameType, Header
from agent.wire.mux import Mux
from tests.hostile.stage import STREAM, Line, Stage, eventually

pytestmark = pytest.mark.django_db(transaction=True)

SECRET = b"echo $((6*7)) # keystrokes of alice\n"


def altered(frame: bytes, at: int) -> bytes:
    changed = bytearray(frame)
    changed[at] ^= 1
    return bytes(changed)


async def test_an_honest_specialist_has_a_shell(stage: Stage) -> None:
    """What the rest is measured by: alice, approved by a person, types in a shell."""
    line = await stage.let_in("os", "ssh")
    await stage.type(line, "ssh", SECRET)
    await eventually(lambda: b"42\n" in line.seen())
    assert not any(SECRET[:12] in frame for frame in line.down + line.up)
    stage.stopped.append("nothing: this one may")


async def test_frames_of_a_live_session_are_altered_moved_and_made(stage: Stage) -> None:
    """Frames of a live `os` session are altered, doubled, turned back, reordered, and invented."""
    line = await stage.let_in("os", "ssh")
    await stage.type(line, "ssh", b"true 1\n")
    recorded = list(line.down)
    for frame in recorded:
        stage.inject(frame)  # again
        for at in (1, 20, 31, 39, len(frame) - 1):  # type, stream, number, offset, sealed bytes
            stage.inject(altered(frame, at))
    for frame in line.up:
        stage.inject(frame)  # the injector's own, sent back to it
    stage.inject(_invented(line, b"reboot\n"))

    line.relay = False
    line.type(b"true 2\n")
    line.type(b"true 3\n")
    first, second = [f for f in line.down[len(recorded) :] if f[1] == FrameType.DATA]
    for frame in (second, first, second, first):
        stage.inject(frame)
    stage.typed["ssh"] += b"true 2\ntrue 3\n"  # each once, in the order in which alice typed
    line.relay = True
    line.client.mux.resume()
    line.client.pump()
    await eventually(lambda: bytes(stage.doors["ssh"].heard) == stage.typed["ssh"])
    await stage.type(line, "ssh", b"true 4\n")  # and the session goes on
    stage.stopped.append("the seal: each frame is bound to its session, sender, stream and number")


def _invented(line: Line, keys: bytes) -> bytes:
    """The next frame of the stream, sealed with a key of the attacker's."""
    header = frames.parse(line.down[-1])
    own = seal.Seal(
        session=header.session, role=seal.Role.CLIENT, send=os.urandom(32), receive=os.urandom(32)
    )
    next_one = Header(FrameType.DATA, header.session, STREAM, header.number + 1, header.offset + 7)
    return own.close(next_one, keys)


async def test_frames_of_an_older_session(stage: Stage) -> None:
    """All frames of an earlier session are played into a new one, and into none."""
    old = await stage.let_in("service", "web")
    await stage.type(old, "web", b"echo old\n")
    session = frames.parse(old.down[0]).session.hex()
    await stage.here.end(session)
    await stage.caught_up()
    for frame in old.down:
        stage.inject(frame)
    new = await stage.let_in("service", "web")
    name = frames.parse(new.down[0]).session
    for frame in old.down:
        stage.inject(frame)
        stage.inject(frame[:4] + name + frame[20:])
    await stage.type(new, "web", b"echo new\n")
    stage.stopped.append("a session's keys die with it, and another session has others")


async def test_another_service_in_a_live_session(stage: Stage) -> None:
    """In alice's live session at `service`, a stream is opened to the shell: by the portal, by its
    own key, and by alice's own program gone wrong."""
    line = await stage.let_in("service", "web")
    session = frames.parse(line.down[0]).session
    stolen = seal.derive(
        private=X25519PrivateKey.generate(),
        peer=X25519PrivateKey.generate().public_key().public_bytes_raw(),
        binding=os.urandom(32), session=session, role=seal.Role.CLIENT,
    )  # fmt: skip
    mux = Mux(stolen)
    mux.open(STREAM + 1, "ssh")
    while (frame := mux.next_frame()) is not None:
        stage.inject(frame)
    opened = next(frame for frame in line.down if frame[1] == FrameType.OPEN)
    stage.inject(opened[:20] + (STREAM + 1).to_bytes(4, "big") + opened[24:])
    for number, service in enumerate(("ssh", "console", "localhost", "tcp-22"), start=2):
        line.client.mux.open(STREAM + number, service)
        line.client.pump()
    await stage.type(line, "web", b"echo web\n")
    await asyncio.sleep(0.1)
    assert line.client.accepted == {STREAM}
    stage.stopped.append("the seal, and behind it the injector's own list of what was granted")
