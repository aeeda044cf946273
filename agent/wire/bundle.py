"""A diagnostics bundle: four coded JSON files in a ZIP whose every byte is accounted for.

    manifest.json   what this is and where it comes from
    samples.json    telemetry, oldest first
    events.json     coded events, oldest first
    audit.json      the device's audit entries of the time, in order of their index

Nothing here is free text (R-PRV-1). A ZIP has many corners where text could travel unseen:
comments, extra fields, dates, bytes around the members, JSON white space. So there is one legal
layout, which `pack` writes and `unpack` demands: these members in this order, no dates, no
comments, no extra fields, headers byte for byte as `pack` makes them, JSON in deterministic form.
Any ZIP tool opens the result.
"""

import struct
import zlib
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec

from agent.wire.catalogue import ClinicalState, EventCode, EventPhase, EventPriority, JobKind
from agent.wire.catalogue import ProductLineCode as Line
from agent.wire.messages import AuditEntry, Count, DeviceId, Hex32, Millis, Number, Sample, Semver

MAX_BUNDLE = 16 * 1024 * 1024  # bytes of the ZIP
MAX_MEMBER = 32 * 1024 * 1024  # bytes of one file inside, uncompressed
MAX_SAMPLES = 20_160  # 168 hours, one every 30 s
MAX_ENTRIES = 20_000  # events, and audit entries


class BundleError(ValueError):
    """Bytes that are no bundle of ours. The message names the place and quotes no content."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`from_at` to `to_at` (ms, the device's wall clock) is the time that the bundle covers."""

    v: Literal[1] = 1
    kind: JobKind
    execution: Hex32
    device: DeviceId
    product_line: Line
    software_version: Semver
    agent_version: Semver
    state: ClinicalState
    boot: Hex32
    uptime_ms: Millis
    from_at: Millis
    to_at: Millis
    samples: Count
    events: Count
    audit: Count


class BundleEvent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    at: Millis
    code: EventCode
    priority: EventPriority
    phase: EventPhase
    syringe: Literal["a", "b", "c"] | None = None
    value: Number | None = None


Samples = Annotated[list[Sample], msgspec.Meta(max_length=MAX_SAMPLES)]
Events = Annotated[list[BundleEvent], msgspec.Meta(max_length=MAX_ENTRIES)]
AuditEntries = Annotated[list[AuditEntry], msgspec.Meta(max_length=MAX_ENTRIES)]


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    manifest: Manifest
    samples: list[Sample]
    events: list[BundleEvent]
    audit: list[AuditEntry]


_MEMBERS: tuple[tuple[str, Any], ...] = (
    ("manifest.json", Manifest),
    ("samples.json", Samples),
    ("events.json", Events),
    ("audit.json", AuditEntries),
)
_encoder = msgspec.json.Encoder(order="deterministic")
_decoders = {name: msgspec.json.Decoder(type) for name, type in _MEMBERS}

# PKWARE APPNOTE 4.3.7, 4.3.12 and 4.3.16. Version 2.0, deflate, dated 1980-01-01T00:00:00.
_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_VERSION, _DEFLATE, _DATE = 20, 8, 0x21


def _local(name: bytes, crc: int, packed: int, size: int) -> bytes:
    fields = (_VERSION, 0, _DEFLATE, 0, _DATE, crc, packed, size, len(name), 0)
    return _LOCAL.pack(b"PK\x03\x04", *fields) + name


def _directory(rows: Sequence[tuple[bytes, int, int, int, int]]) -> bytes:
    """Central directory and its end, for (name, crc, packed, size, offset) of each member."""
    central = b"".join(
        _CENTRAL.pack(
            b"PK\x01\x02", _VERSION, _VERSION, 0, _DEFLATE, 0, _DATE,
            crc, packed, size, len(name), 0, 0, 0, 0, 0, offset,
        )
        + name
        for name, crc, packed, size, offset in rows
    )  # fmt: skip
    name, _, packed, _, offset = rows[-1]
    start = offset + _LOCAL.size + len(name) + packed
    return central + _END.pack(b"PK\x05\x06", 0, 0, len(rows), len(rows), len(central), start, 0)


def pack(contents: Contents) -> bytes:
    """The ZIP. Raises BundleError when the contents break their schema or are larger than allowed:
    msgspec checks what it decodes, not what a program builds, so it decodes here once."""
    names = [name for name, _ in _MEMBERS]
    written = [_encoder.encode(getattr(contents, name.removesuffix(".json"))) for name in names]
    values = [_decode(name, data) for name, data in zip(names, written, strict=True)]
    _agree(Contents(**dict(zip(Contents.__struct_fields__, values, strict=True))))
    return _assemble({name: _encoder.encode(v) for name, v in zip(names, values, strict=True)})


def _assemble(members: dict[str, bytes]) -> bytes:
    parts: list[bytes] = []
    rows: list[tuple[bytes, int, int, int, int]] = []
    offset = 0
    for name, data in members.items():
        if len(data) > MAX_MEMBER:
            raise BundleError(f"{name} has {len(data)} bytes, at most {MAX_MEMBER}")
        deflate = zlib.compressobj(level=6, wbits=-15)
        packed = deflate.compress(data) + deflate.flush()
        crc, raw = zlib.crc32(data), name.encode()
        parts += [_local(raw, crc, len(packed), len(data)), packed]
        rows.append((raw, crc, len(packed), len(data), offset))
        offset += _LOCAL.size + len(raw) + len(packed)
    whole = b"".join([*parts, _directory(rows)])
    if len(whole) > MAX_BUNDLE:
        raise BundleError(f"the bundle has {len(whole)} bytes, at most {MAX_BUNDLE}")
    return whole


def unpack(data: bytes) -> Contents:
    """Read and check every byte. Raises BundleError."""
    if len(data) > MAX_BUNDLE:
        raise BundleError(f"the bundle has {len(data)} bytes, at most {MAX_BUNDLE}")
    view, offset = memoryview(data), 0
    rows: list[tuple[bytes, int, int, int, int]] = []
    found: dict[str, Any] = {}
    for name, _ in _MEMBERS:
        raw = name.encode()
        start = offset + _LOCAL.size + len(raw)
        if start > len(data):
            raise BundleError(f"the bundle ends before {name}")
        crc, packed, size = _LOCAL.unpack_from(data, offset)[6:9]
        if view[offset:start] != _local(raw, crc, packed, size):
            raise BundleError(f"the header of {name} is not as this format has it")
        found[name.removesuffix(".json")] = _member(name, view[start : start + packed], crc, size)
        rows.append((raw, crc, packed, size, offset))
        offset = start + packed
    if view[offset:] != _directory(rows):
        raise BundleError("what follows the last member is not as this format has it")
    contents = Contents(**found)
    _agree(contents)
    return contents


def _member(name: str, packed: memoryview, crc: int, size: int) -> Any:
    if size > MAX_MEMBER:
        raise BundleError(f"{name} has {size} bytes, at most {MAX_MEMBER}")
    inflate = zlib.decompressobj(wbits=-15)
    try:
        data = inflate.decompress(packed, size + 1)
    except zlib.error:
        raise BundleError(f"{name} does not inflate") from None
    if len(data) != size or not inflate.eof or inflate.unused_data or zlib.crc32(data) != crc:
        raise BundleError(f"{name} is not of the stated size and checksum")
    value = _decode(name, data)
    if _encoder.encode(value) != data:
        raise BundleError(f"{name} is not in deterministic form")
    return value


def _decode(name: str, data: bytes) -> Any:
    try:
        return _decoders[name].decode(data)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError):
        raise BundleError(f"{name} holds what its schema does not allow") from None


def _agree(contents: Contents) -> None:
    manifest = contents.manifest
    for name in ("samples", "events", "audit"):
        if len(getattr(contents, name)) != getattr(manifest, name):
            raise BundleError(f"the manifest counts other {name} than there are")
    if manifest.from_at > manifest.to_at:
        raise BundleError("the manifest's time runs backwards")
