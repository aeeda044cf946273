"""Which certificates no gate lets in, though TLS believes them.

Kept in memory and given to the gates as a whole at each change, at once by the service that makes
it (after its commit). A tick brings it up to date with what another process wrote. A certificate
that has ended needs no place here: the gate looks at the end itself.
"""

import threading
from collections.abc import Iterable
from datetime import datetime, timedelta

from django.db.models import Q

from broker import denied as gates
from fleet.core import ports
from fleet.enrolment.models import Credential

# How far back the tick looks beyond its last look: transactions commit out of order, and the clocks
# of two processes may differ a little.
_OVERLAP = timedelta(seconds=30)


class Denied:
    """Safe to call from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ends: dict[str, datetime] = {}  # serial: end of the certificate
        self._looked: datetime | None = None

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, credentials: Iterable[Credential]) -> None:
        """Deny these, and tell the gates if it is news."""
        with self._lock:
            before = len(self._ends)
            for credential in credentials:
                self._ends[gates.serial(credential.serial_number)] = credential.not_after_at
            changed = len(self._ends) != before
        if changed:
            self.tell()

    def tell(self) -> None:
        """Give the gates the list as it is: at a change, and when there are gates to hear it."""
        with self._lock:
            listed = gates.DenyList(certificates=frozenset(self._ends))
        ports.deny(listed)

    def refresh(self, now: datetime) -> list[Credential]:
        """Take in what was denied since the last call, all of it the first time. Returns those that
        are news here."""
        over = Q(revoked_at__isnull=False) | Q(superseded_at__isnull=False)
        if self._looked is not None:
            since = self._looked - _OVERLAP
            over = Q(revoked_at__gt=since) | Q(superseded_at__gt=since)
        rows = list(Credential.objects.filter(over, not_after_at__gt=now).order_by())
        with self._lock:
            new = [row for row in rows if gates.serial(row.serial_number) not in self._ends]
            for serial in [serial for serial, end in self._ends.items() if end <= now]:
                del self._ends[serial]
        self.add(new)
        self._looked = now
        return new

    def clear(self) -> None:
        with self._lock:
            self._ends.clear()
        self._looked = None


denied = Denied()
