"""Schemas: all round-trip, nothing else passes, and no text can go up (R-PRV-1, R-CON-1)."""

import copy
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.wire import messages as m
from agent.wire.catalogue import RefusalReason
from tests.agent.wire import samples, strategies
from tests.scale import scaled

ALL = [(m.decode_up, cls) for cls in m.UP] + [(m.decode_down, cls) for cls in m.DOWN]
SAMPLES = [(m.decode_up, it) for it in samples.UP] + [(m.decode_down, it) for it in samples.DOWN]
names = [f"{'up' if decode is m.decode_up else 'dn'}/{cls.TYPE}" for decode, cls in ALL]

# Bytes that a schema cannot look into: keys, signatures, certificates, and what they sign.
OPAQUE_UP = {
    "challenge.challenge", "challenge.signature", "challenge.certificates[]", "receipt.receipt",
    "receipt.signature", "execution.key", "hello.head.signature", "audit.head.signature",
    "renewal.csr",
}  # fmt: skip


def test_there_is_a_sample_of_every_type() -> None:
    assert [type(it) for it in samples.UP] == list(m.UP)
    assert [type(it) for it in samples.DOWN] == list(m.DOWN)


def test_a_type_and_version_name_one_schema() -> None:
    for classes in (m.UP, m.DOWN):
        keys = [(cls.TYPE, cls.VERSION) for cls in classes]
        assert len(set(keys)) == len(keys)
    assert m.known_down() == {cls.TYPE: [cls.VERSION] for cls in m.DOWN}


@pytest.mark.parametrize(("decode", "cls"), ALL, ids=names)
def test_every_type_round_trips(decode: Any, cls: type[m.Message]) -> None:
    @given(strategies.of(cls))
    @settings(max_examples=scaled(200, at_least=10), deadline=None)
    def check(value: dict[str, Any]) -> None:
        message = decode(cls.TYPE, cls.VERSION, msgspec.json.encode(value))
        assert type(message) is cls
        assert decode(cls.TYPE, cls.VERSION, m.encode(message)) == message
        assert m.encode(message) == m.encode(copy.deepcopy(message))

    check()


@pytest.mark.parametrize(("decode", "cls"), ALL, ids=names)
def test_any_bytes_are_decoded_or_refused(decode: Any, cls: type[m.Message]) -> None:
    @given(st.binary(max_size=64) | st.text(max_size=64).map(str.encode))
    @settings(max_examples=20, deadline=None)
    def check(payload: bytes) -> None:
        with pytest.raises(m.MessageError) as refused:
            decode(cls.TYPE, cls.VERSION, payload)
        assert refused.value.reason is RefusalReason.MALFORMED

    check()


def _mutations(value: Any) -> list[Any]:
    """Copies of a JSON value with one thing put wrong: an added, dropped or changed field."""
    made: list[Any] = []

    def walk(here: Any, put: Any) -> None:
        if isinstance(here, dict):
            put({**here, "patient": "Jo Smith"})
            for key, inner in here.items():
                walk(inner, lambda new, key=key: put({**here, key: new}))
        elif isinstance(here, list):
            put([*here, "Jo Smith"])
            for index, inner in enumerate(here):
                walk(inner, lambda new, i=index: put([*here[:i], new, *here[i + 1 :]]))
        else:
            for wrong in ("Jo Smith 1953-02-01", {"name": "Jo"}, ["Jo Smith"], 1e300):
                put(wrong)
            if isinstance(here, int):
                put(-1)

    walk(value, made.append)
    return made


@pytest.mark.parametrize(("decode", "message"), SAMPLES, ids=names)
def test_off_schema_is_refused_and_not_quoted(decode: Any, message: m.Message) -> None:
    value = msgspec.json.decode(m.encode(message))
    text_fields = {"name", "organisation", "note"}  # the free text that goes down
    required = {
        f.encode_name
        for f in msgspec.inspect.type_info(type(message)).fields  # type: ignore[attr-defined]
        if f.required
    }
    wrong = [*_mutations(value), *({k: v for k, v in value.items() if k != r} for r in required)]
    refused = 0
    for changed in wrong:
        payload = msgspec.json.encode(changed)
        try:
            taken = decode(message.TYPE, 1, payload)
        except m.MessageError as error:
            refused += 1
            assert "Smith" not in str(error)
            assert "patient" not in str(error)
            assert error.__context__ is None  # a log of the traceback quotes nothing either
        else:
            assert decode is m.decode_down
            differs = {k for k in changed if getattr(taken, k) != getattr(message, k)}
            assert differs <= text_fields, changed
    assert refused >= len(required)


def test_a_pattern_takes_the_whole_text() -> None:
    """`$` in a pattern would let a line feed through."""
    value = msgspec.json.decode(m.encode(samples.UP[1]))
    for boot in ("b0" * 16 + "\n", "\n" + "b0" * 16, "b0" * 17, "B0" * 16, "٣" * 32):
        with pytest.raises(m.MessageError):
            m.decode_up("heartbeat", 1, msgspec.json.encode({**value, "boot": boot}))


@pytest.mark.parametrize(
    "note", ["a\nb", "a\x00", "\x1b[31m", "a\u202eb", "a\u2066b", "a\u200bb", "a\ufeff", "x" * 201]
)
def test_a_note_is_inert(note: str) -> None:
    value = msgspec.json.decode(m.encode(samples.DOWN[2]))
    with pytest.raises(m.MessageError):
        m.decode_down("access-request", 1, msgspec.json.encode({**value, "note": note}))


@pytest.mark.parametrize("cls", m.UP, ids=lambda cls: cls.TYPE)
def test_no_text_can_go_up(cls: type[m.Up]) -> None:
    """R-PRV-1: every string of every schema is a code, an identifier or a digest."""
    for struct in strategies.structs(cls):
        assert struct.forbid_unknown_fields, struct.cls
    for path, leaf in strategies.leaves(cls, cls.TYPE):
        if isinstance(leaf, msgspec.inspect.StrType):
            assert leaf.pattern, path
            assert leaf.pattern.startswith("^"), path
            assert leaf.pattern.endswith(r"\Z"), path
            for text in ("Jo Smith", "Jo,Smith", "1953/02/01", "né", "a\n", "x" * 65):
                assert not re.search(leaf.pattern, text), (path, text)
        elif isinstance(leaf, msgspec.inspect.BytesType):
            assert path in OPAQUE_UP, path
            assert leaf.max_length is not None
        elif isinstance(leaf, msgspec.inspect.IntType):
            assert leaf.ge is not None, path
            assert leaf.le is not None, path
        elif isinstance(leaf, msgspec.inspect.FloatType):
            assert (leaf.ge, leaf.le) != (None, None), path
        else:
            closed = (
                msgspec.inspect.EnumType,
                msgspec.inspect.LiteralType,
                msgspec.inspect.NoneType,
                msgspec.inspect.BoolType,
            )
            assert isinstance(leaf, closed), path


def test_lists_and_tables_are_bounded() -> None:
    def walk(info: Any, path: str) -> None:
        if isinstance(info, msgspec.inspect.StructType):
            for field in info.fields:
                walk(field.type, f"{path}.{field.encode_name}")
        elif isinstance(info, msgspec.inspect.ListType | msgspec.inspect.DictType):
            assert info.max_length is not None, path
            inner = info.item_type if hasattr(info, "item_type") else info.value_type
            walk(inner, path + "[]")
        elif isinstance(info, msgspec.inspect.UnionType):
            for member in info.types:
                walk(member, path)

    for cls in (*m.UP, *m.DOWN):
        walk(msgspec.inspect.type_info(cls), cls.TYPE)


def test_what_a_program_builds_wrongly_does_not_leave() -> None:
    """A struct is not checked when it is built; encode() is the last door (R-PRV-1)."""
    wrong = msgspec.structs.replace(samples.UP[1], boot="Jo Smith")
    with pytest.raises(m.MessageError) as refused:
        m.encode(wrong)
    assert "Smith" not in str(refused.value)
    assert refused.value.reason is RefusalReason.MALFORMED


def test_unknown_types_and_versions_have_their_own_codes() -> None:
    for decode, type, version, reason in (
        (m.decode_up, "injection", 1, RefusalReason.UNKNOWN_TYPE),
        (m.decode_up, "event", 2, RefusalReason.UNKNOWN_VERSION),
        (m.decode_up, "job", 1, RefusalReason.UNKNOWN_TYPE),
        (m.decode_down, "event", 1, RefusalReason.UNKNOWN_TYPE),
    ):
        with pytest.raises(m.MessageError) as refused:
            decode(type, version, b"{}")  # type: ignore[operator]
        assert refused.value.reason is reason


def test_size_is_bounded_both_ways() -> None:
    with pytest.raises(m.MessageError) as refused:
        m.decode_up("event", 1, b" " * (m.MAX_PAYLOAD + 1))
    assert refused.value.reason is RefusalReason.TOO_LARGE
    update = m.RosterUpdate(roster=bytes(2 * m.MAX_PAYLOAD), signature=bytes(64))
    with pytest.raises(m.MessageError) as refused:
        m.encode(update)
    assert refused.value.reason is RefusalReason.TOO_LARGE
