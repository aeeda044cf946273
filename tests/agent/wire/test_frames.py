"""Frames: forty bytes that anyone on the way may read, and nothing that is not one of ours."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.wire.frames import (
    HEADER,
    MAX_FRAME,
    TAG,
    FrameError,
    FrameType,
    Header,
    parse,
)

headers = st.builds(
    Header,
    type=st.sampled_from(FrameType),
    session=st.binary(min_size=16, max_size=16),
    stream=st.integers(0, 2**32 - 1),
    number=st.integers(0, 2**64 - 1),
    offset=st.integers(0, 2**64 - 1),
)


@given(headers, st.binary(max_size=64))
@settings(max_examples=100)
def test_a_header_reads_back(header: Header, payload: bytes) -> None:
    assert parse(header.pack() + payload + bytes(TAG)) == header


@given(st.binary(max_size=200))
@settings(max_examples=200)
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        header = parse(data)
    except FrameError:
        return
    assert data.startswith(header.pack())


@pytest.mark.parametrize(
    ("at", "value", "words"),
    [(0, 2, "version"), (1, 0, "type"), (1, 8, "type"), (2, 1, "reserved"), (3, 1, "reserved")],
)
def test_a_changed_header_is_refused(at: int, value: int, words: str) -> None:
    frame = bytearray(Header(FrameType.DATA, bytes(16), 1, 0, 0).pack() + bytes(TAG))
    frame[at] = value
    with pytest.raises(FrameError, match=words):
        parse(bytes(frame))


def test_sizes_are_bounded() -> None:
    header = Header(FrameType.DATA, bytes(16), 1, 0, 0).pack()
    assert parse(header + bytes(MAX_FRAME - HEADER.size))
    for size in (0, HEADER.size, HEADER.size + TAG - 1, MAX_FRAME + 1):
        with pytest.raises(FrameError, match="bytes"):
            parse((header + bytes(MAX_FRAME))[:size])
