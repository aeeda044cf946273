"""One message of each type, with every field set: for vectors and for mutations."""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.wire import messages as m
from agent.wire.catalogue import (
    ClientKind,
    ClinicalState,
    EventCode,
    EventPhase,
    EventPriority,
    ExecutionState,
    JobKind,
    JobReason,
    Level,
    Metric,
    Outcome,
    ProductLineCode,
    RefusalReason,
    RequestReason,
    SessionReason,
    SessionState,
)
from agent.wire.chain import GENESIS, entry_hash, sign_head

AT = 1_790_000_000_000
DEVICE = "dev_Alpha-01"
SESSION = "5e" * 16
EXECUTION = "e0" * 16
AUDIT_KEY = Ed25519PrivateKey.from_private_bytes(b"\x0a" * 32)

_entry = {
    "index": 0, "at": AT, "boot": "b0" * 16, "uptime_ms": 61_000, "action": "session:approve",
    "actor": "approver-1", "outcome": Outcome.ALLOWED, "session": SESSION, "execution": EXECUTION,
    "reason": "in_use", "digest": "d1" * 32, "previous": GENESIS,
}  # fmt: skip
ENTRY = m.AuditEntry(**_entry, hash=entry_hash(_entry))  # type: ignore[arg-type]
HEAD = sign_head(AUDIT_KEY, chain=DEVICE, index=0, hash=ENTRY.hash, at=AT)

_up = {"at": AT, "boot": "b0" * 16, "uptime_ms": 61_000}
_durable = {**_up, "outbox": "0b" * 16, "seq": 7}
_sample = m.Sample(
    at=AT,
    uptime_ms=60_000,
    state=ClinicalState.IDLE,
    values={Metric("pressure_kpa_a"): 12.5, Metric("heater_temp_c"): 37.0},
)

# What the first agents read. It is in a frozen vector, so it does not grow with the types.
KNOWN_FIRST = {
    kind: [1]
    for kind in (
        "access-request", "answer", "audit-head", "cancel", "end", "hello", "job", "rate",
        "refused", "roster",
    )
}  # fmt: skip

FIRST_UP: tuple[m.Up, ...] = (
    m.Hello(
        **_up, agent_version="1.2.3", software_version="10.0.4",
        product_line=ProductLineCode.CT_DUAL, state=ClinicalState.IDLE, knows=KNOWN_FIRST,
        outbox="0b" * 16, high=7, roster_version=3, entitlement_version=2,
        services={"ssh": Level.OS}, head=HEAD,
    ),
    m.Heartbeat(**_up, state=ClinicalState.ARMED, outbox_depth=2, rtt_ms=12.5),
    m.Live(**_up, state=ClinicalState.INJECTING, values=_sample.values),
    m.Telemetry(**_durable, samples=[_sample]),
    m.Event(
        **_durable, code=EventCode.OVERPRESSURE, priority=EventPriority.HIGH,
        phase=EventPhase.RAISED, syringe="a", value=2100.5,
    ),
    m.Accepted(**_durable, of="access-request", ref=SESSION, digest="d1" * 32),
    m.Challenge(
        **_durable, session=SESSION, challenge=b"{}", signature=b"\x30\x01",
        certificates=[b"\x30\x02", b"\x30\x03"],
    ),
    m.SessionUpdate(
        **_durable, session=SESSION, request="d2" * 32, state=SessionState.ENDED,
        reason=SessionReason.STOPPED_AT_PANEL, ends_at=AT + 1, approvers=[7, 2],
        bytes_up=10, bytes_down=20,
    ),
    m.Receipt(**_durable, session=SESSION, receipt=b"{}", signature=bytes(64)),
    m.Execution(
        **_durable, execution=EXECUTION, state=ExecutionState.RUNNING, reason=JobReason.IN_USE,
        key=bytes(range(32)), bundle=m.Bundle(digest="d3" * 32, size=4096),
    ),
    m.Audit(**_durable, entries=[ENTRY], head=HEAD),
)  # type: ignore[arg-type]  # fmt: skip

FIRST_DOWN: tuple[m.Message, ...] = (
    m.Welcome(at=AT, outbox="0b" * 16, high=7, head=HEAD),
    m.Refused(outbox="0b" * 16, seq=7, reason=RefusalReason.MALFORMED),
    m.AccessRequest(
        at=AT, session=SESSION, device=DEVICE, specialist="noor", name="Noor Haddad",
        organisation="Vendor support", level=Level.OS, services=["ssh", "web"],
        reason=RequestReason.REPAIR, ticket="T-1", note="Heater, 2nd visit — état: chaud",
        client=ClientKind.COMMAND_LINE, break_glass=False, life_s=1800,
    ),
    m.Answer(
        session=SESSION, client_key=bytes(range(32)), proof=m.SshProof(signature=b"SSHSIG")
    ),
    m.End(session=SESSION, reason=m.EndReason.ENDED_BY_HOSPITAL),
    m.Job(
        execution=EXECUTION, kind=JobKind.COLLECT_DIAGNOSTICS, hours=24, not_after=AT + 1,
        key=bytes(range(32)),
    ),
    m.Cancel(execution=EXECUTION),
    m.Rate(hz=2.5, for_s=30),
    m.RosterUpdate(roster=b"{}", signature=bytes(64)),
    m.EntitlementUpdate(entitlement=b"{}", signature=bytes(64)),
    m.ServerHead(head=HEAD),
)  # fmt: skip

# Access servers that come and go.
SERVERS_DOWN: tuple[m.Message, ...] = (
    m.Servers(
        servers=[
            m.AccessServer(host="east.example.org", port=443),
            m.AccessServer(host="192.0.2.7", port=8443),
        ]
    ),
)

# A credential for life: renewal, and the panel's switch.
IDENTITY_UP: tuple[m.Up, ...] = (
    m.Renewal(**_durable, csr=b"\x30\x04"),
    m.Remote(**_durable, enabled=False),
)  # type: ignore[arg-type]
IDENTITY_DOWN: tuple[m.Message, ...] = (m.Certificate(certificates=[b"\x30\x05", b"\x30\x06"]),)

UP = (*FIRST_UP, *IDENTITY_UP)
DOWN = (*FIRST_DOWN, *SERVERS_DOWN, *IDENTITY_DOWN)
