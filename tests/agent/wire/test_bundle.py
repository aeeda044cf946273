"""The diagnostics bundle's one legal layout (R-MNT-3, R-PRV-1)."""

import io
import zipfile

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.wire import bundle
from agent.wire.catalogue import (
    ClinicalState,
    EventCode,
    EventPhase,
    EventPriority,
    JobKind,
    Metric,
    Outcome,
    ProductLineCode,
)
from agent.wire.messages import AuditEntry, Sample


def contents(samples: int = 3) -> bundle.Contents:
    rows = [
        Sample(at=n, uptime_ms=n, state=ClinicalState.IDLE, values={Metric("fan_rpm"): 1200.5 + n})
        for n in range(samples)
    ]
    events = [
        bundle.BundleEvent(
            at=1, code=EventCode.STALL, priority=EventPriority.HIGH, phase=EventPhase.RAISED
        )
    ]
    audit = [
        AuditEntry(
            index=0, at=1, boot="b" * 32, uptime_ms=1, action="access:request", actor="agent",
            outcome=Outcome.ALLOWED, previous="0" * 64, hash="1" * 64,
        )
    ]  # fmt: skip
    manifest = bundle.Manifest(
        kind=JobKind.COLLECT_DIAGNOSTICS, execution="e" * 32, device="device-one",
        product_line=ProductLineCode.CT_DUAL, software_version="1.2.3", agent_version="0.1.0",
        state=ClinicalState.IDLE, boot="b" * 32, uptime_ms=5, from_at=0, to_at=10,
        samples=len(rows), events=1, audit=1,
    )  # fmt: skip
    return bundle.Contents(manifest=manifest, samples=rows, events=events, audit=audit)


def rebuilt(**changes: bytes) -> bytes:
    """The same bundle through zipfile, with members replaced or added."""
    source = zipfile.ZipFile(io.BytesIO(bundle.pack(contents())))
    members = {name: source.read(name) for name in source.namelist()} | {
        f"{name}.json": data for name, data in changes.items()
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def test_what_is_packed_unpacks() -> None:
    assert bundle.unpack(bundle.pack(contents())) == contents()
    empty = bundle.pack(contents(samples=0))
    assert bundle.unpack(empty).samples == []
    assert bundle.pack(contents()) == bundle.pack(contents())


def test_what_a_program_builds_is_put_in_form_and_checked() -> None:
    """msgspec does not check what is built in memory: whole numbers where floats belong are put
    right, anything else off-schema is found before it leaves."""
    whole = Sample(at=1, uptime_ms=1, state=ClinicalState.IDLE, values={Metric("fan_rpm"): 1200})
    [read] = bundle.unpack(bundle.pack(with_samples([whole]))).samples
    assert read == whole
    stray = Sample(at=1, uptime_ms=1, state="DOE^JANE", values={})  # type: ignore[arg-type]
    with pytest.raises(bundle.BundleError):
        bundle.pack(with_samples([stray]))
    with pytest.raises(bundle.BundleError):
        bundle.pack(msgspec.structs.replace(contents(), samples=[]))


def with_samples(samples: list[Sample]) -> bundle.Contents:
    manifest = msgspec.structs.replace(contents().manifest, samples=len(samples))
    return msgspec.structs.replace(contents(), manifest=manifest, samples=samples)


def test_any_zip_tool_opens_it() -> None:
    archive = zipfile.ZipFile(io.BytesIO(bundle.pack(contents())))
    assert archive.testzip() is None
    assert archive.namelist() == ["manifest.json", "samples.json", "events.json", "audit.json"]


@given(st.data())
@settings(max_examples=60)
def test_one_changed_byte_is_found(data: st.DataObject) -> None:
    whole = bytearray(bundle.pack(contents()))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    try:
        read = bundle.unpack(bytes(whole))
    except bundle.BundleError:
        return
    assert read == contents()  # a bit of deflate's padding, which carries no content


@given(st.binary(max_size=300))
@settings(max_examples=40)
def test_no_bytes_crash_it(data: bytes) -> None:
    with pytest.raises(bundle.BundleError):
        bundle.unpack(data)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"x" + bundle.pack(contents()), id="bytes before"),
        pytest.param(bundle.pack(contents()) + b"DOE^JANE", id="bytes after"),
        pytest.param(bundle.pack(contents())[:-1], id="cut"),
        pytest.param(bundle.pack(contents())[:40], id="cut early"),
        pytest.param(rebuilt(), id="another tool's dates and flags"),
        pytest.param(rebuilt(note=b"{}"), id="a fifth member"),
    ],
)
def test_another_layout_is_refused(data: bytes) -> None:
    with pytest.raises(bundle.BundleError):
        bundle.unpack(data)


def relaid(**members: bytes) -> bytes:
    """A bundle in the legal layout whose members hold these exact bytes."""
    good = {
        name: msgspec.json.encode(getattr(contents(), name), order="deterministic")
        for name in ("manifest", "samples", "events", "audit")
    }
    return bundle._assemble({f"{name}.json": data for name, data in (good | members).items()})


def test_relaid_is_what_pack_makes() -> None:
    assert relaid() == bundle.pack(contents())


@pytest.mark.parametrize(
    "members",
    [
        pytest.param({"events": b'[{"at":1,"code":201,"note":"DOE^JANE"}]'}, id="a text field"),
        pytest.param({"events": b"[ ]"}, id="white space"),
        pytest.param({"events": b"[]"}, id="other counts than the manifest's"),
        pytest.param({"samples": b'["DOE^JANE"]'}, id="a string for a sample"),
        pytest.param({"audit": b"\xff"}, id="not UTF-8"),
        pytest.param({"manifest": b'{"v":2}'}, id="another version"),
    ],
)
def test_what_the_schema_does_not_allow_is_refused(members: dict[str, bytes]) -> None:
    with pytest.raises(bundle.BundleError) as caught:
        bundle.unpack(relaid(**members))
    assert "DOE" not in str(caught.value)


def test_a_bomb_is_refused_before_it_inflates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "MAX_MEMBER", 10**9)
    bomb = relaid(samples=b"[" + b" " * (40 * 1024 * 1024) + b"]")
    monkeypatch.undo()
    assert len(bomb) < bundle.MAX_BUNDLE
    with pytest.raises(bundle.BundleError, match=r"samples\.json has 41943042 bytes"):
        bundle.unpack(bomb)


def test_too_much_is_not_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "MAX_MEMBER", 100)
    with pytest.raises(bundle.BundleError):
        bundle.pack(contents())
    monkeypatch.undo()
    monkeypatch.setattr(bundle, "MAX_BUNDLE", 100)
    with pytest.raises(bundle.BundleError):
        bundle.pack(contents())
    with pytest.raises(bundle.BundleError):
        bundle.unpack(b"x" * 101)
