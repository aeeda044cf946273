"""The deny-list: who is refused although TLS believes them. Pure.

A device that was retired or moved is denied by its id; a single credential (a key that leaked, a
certificate that was replaced early) by its serial number.
"""

from dataclasses import dataclass

from broker.acl import Identity


def serial(text: str) -> str:
    """A certificate's serial number in one spelling: upper-case hexadecimal, no leading zeros."""
    return text.upper().lstrip("0") or "0"


@dataclass(frozen=True, slots=True)
class DenyList:
    """`certificates` are serial numbers as `serial` spells them."""

    devices: frozenset[str] = frozenset()
    certificates: frozenset[str] = frozenset()

    def denies(self, identity: Identity) -> bool:
        return identity.device in self.devices or serial(identity.serial) in self.certificates
