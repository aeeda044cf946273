"""A device's own audit chain, as a simulator would make it."""

from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.wire import chain
from agent.wire.messages import Audit, AuditEntry, SignedHead


class DeviceChain:
    def __init__(self, device: str, key: Ed25519PrivateKey) -> None:
        self.device = device
        self.key = key
        self.entries: list[AuditEntry] = []

    def add(self, **fields: Any) -> AuditEntry:
        previous = self.entries[-1].hash if self.entries else chain.GENESIS
        values = {
            "index": len(self.entries),
            "at": 1_700_000_000_000 + len(self.entries),
            "boot": "c" * 32,
            "uptime_ms": 5,
            "action": "session:request",
            "actor": "owner",
            "outcome": "allowed",
            "previous": previous,
            **fields,
        }
        plain = msgspec.to_builtins(msgspec.convert({**values, "hash": chain.GENESIS}, AuditEntry))
        plain["hash"] = chain.entry_hash(plain)
        entry = msgspec.convert(plain, AuditEntry)
        self.entries.append(entry)
        return entry

    def head(self, entry: AuditEntry | None = None) -> SignedHead:
        entry = entry or self.entries[-1]
        return chain.sign_head(
            self.key, chain=self.device, index=entry.index, hash=entry.hash, at=entry.at
        )

    def message(self, start: int = 0, end: int | None = None, **fields: Any) -> Audit:
        entries = self.entries[start:end]
        values = {
            "at": 1,
            "boot": "c" * 32,
            "uptime_ms": 1,
            "outbox": "d" * 32,
            "seq": start + 1,
            "entries": entries,
            "head": self.head(entries[-1]),
            **fields,
        }
        return Audit(**values)
