"""Any bytes, cut anywhere: the client reads what the websockets package reads (ADR 0022)."""

import asyncio
import struct

from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import Protocol as Base
from websockets.protocol import State
from websockets.uri import parse_uri

from agent.wire.frames import MAX_FRAME
from fleet.client.websocket import Websocket
from tests.client.test_websocket import Owner, accepted, message
from tests.scale import scaled


class _Sink:
    """A transport that takes everything."""

    def write(self, data: bytes) -> None: ...

    def set_write_buffer_limits(self, high: int) -> None: ...

    def abort(self) -> None: ...

    def is_closing(self) -> bool:
        return False

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None: ...


_frames = st.one_of(
    st.binary(max_size=300).map(message),
    st.binary(min_size=120, max_size=130).map(message),
    st.sampled_from([0, MAX_FRAME - 1, MAX_FRAME]).map(lambda size: message(bytes(size))),
    st.builds(message, st.binary(max_size=9), first=st.sampled_from([0x89, 0x8A])),
    st.builds(message, st.binary(max_size=9), first=st.sampled_from([0x02, 0x00, 0x80, 0x81])),
    st.builds(message, st.binary(max_size=130), first=st.integers(0, 255)),
    st.just(message(struct.pack(">H", 4409), first=0x88)),
    st.just(message(bytes(MAX_FRAME + 1))),
    st.binary(max_size=20),
)


@given(st.lists(_frames, max_size=8), st.lists(st.integers(1, 4000), max_size=30))
@settings(max_examples=scaled(1500, at_least=200), deadline=None)
def test_it_reads_what_the_package_reads(frames: list[bytes], cuts: list[int]) -> None:
    """The same messages, the same Close with the same code, however the bytes are cut."""
    sent = b"".join(frames)

    async def ours() -> tuple[list[bytes], Close | None]:
        owner = Owner()
        websocket = Websocket(parse_uri("ws://localhost/"), {}, owner)
        websocket.connection_made(_Sink())  # type: ignore[arg-type]
        answer = accepted(websocket._frames.connect().serialize())
        left, sizes = answer + sent, [len(answer) // 2, *cuts]
        while left:
            buffer = websocket.get_buffer(-1)
            size = min(len(left), len(buffer), sizes.pop(0) if sizes else len(left))
            buffer[:size] = left[:size]
            websocket.buffer_updated(size)
            left = left[size:]
        websocket.connection_lost(None)
        return owner.got, websocket._frames.close_sent

    assert asyncio.run(ours()) == _as_the_package_reads(sent)


def _as_the_package_reads(sent: bytes) -> tuple[list[bytes], Close | None]:
    reference = ClientProtocol(parse_uri("ws://localhost/"), max_size=MAX_FRAME, state=State.OPEN)
    # An answer to the upgrade was read before, as far as it knows.
    reference.parser = Base.parse(reference)
    next(reference.parser)
    reference.receive_data(sent)
    got: list[bytes] = []
    parts: list[bytes] = []
    binary = False
    for event in reference.events_received():
        assert isinstance(event, Frame)
        if event.opcode in (Opcode.BINARY, Opcode.TEXT):
            binary = event.opcode is Opcode.BINARY
        elif event.opcode is not Opcode.CONT:
            continue
        parts.append(bytes(event.data))
        if event.fin:
            if binary:
                got.append(b"".join(parts))
            parts.clear()
    return got, reference.close_sent
