"""Certificates of ours that end soon, said while there is time (R-CON-5, R-CON-6).

    the portal's server certificate   its file
    the device CA                     its file, counted from 30 days before its end: what it issued
                                      from then on would outlive it
    those of an access server         what it tells over its link of what it has loaded

Injectors renew theirs by themselves, and so does the portal its own for the links. The roots live
longer than an injector. Whoever runs access servers reads this on their pages and under *what is
wrong now*; the log, `/-/ready` and the metrics say it too.
"""

import logging
import shlex
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cryptography import x509
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from agent.wire.catalogue import EventPriority
from broker.endings import SOON, Reminder, Urgency, days_left, urgency
from fleet.core import clock
from fleet.enrolment import ca, metrics
from fleet.servers.models import AccessServer

SERVER, DEVICE_CA, ACCESS_SERVER = "server", "device_ca", "access_server"

_NAMES: dict[str, str | Promise] = {
    SERVER: gettext_lazy("The portal’s server certificate"),
    DEVICE_CA: gettext_lazy("The authority of injectors’ certificates"),
    ACCESS_SERVER: gettext_lazy("Certificates of access server %(name)s"),
}
_THEN: dict[str, str | Promise] = {
    SERVER: gettext_lazy("At the portal; then restart it:"),
    DEVICE_CA: gettext_lazy(
        "At the portal; docs/ca.md says how to go on (Replacing the device CA):"
    ),
    ACCESS_SERVER: gettext_lazy(
        "At the portal; then put the folder’s files in the place of those there, and restart the"
        " access server:"
    ),
}
_PRIORITY = {
    Urgency.SOON: EventPriority.MEDIUM,
    Urgency.URGENT: EventPriority.HIGH,
    Urgency.OVER: EventPriority.HIGH,
}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ending:
    """What ends, when, and the command that puts it off; `name` is an access server's or empty."""

    what: str  # SERVER, DEVICE_CA or ACCESS_SERVER
    name: str
    ends_at: datetime
    command: str
    now: datetime

    @property
    def urgency(self) -> Urgency:
        return urgency(self.ends_at, self.now)

    @property
    def priority(self) -> str:
        """As of an event, for the pages."""
        return _PRIORITY[self.urgency].value

    @property
    def title(self) -> str:
        return str(_NAMES[self.what]) % {"name": self.name}

    @property
    def when(self) -> str:
        day = f"{self.ends_at:%Y-%m-%d}"
        if self.urgency is Urgency.OVER:
            return _("Over since %(day)s.") % {"day": day}
        days = days_left(self.ends_at, self.now)
        return ngettext(
            "Until %(day)s: %(days)d day left.", "Until %(day)s: %(days)d days left.", days
        ) % {"day": day, "days": days}

    @property
    def remedy(self) -> str:
        """The words before the command."""
        return str(_THEN[self.what])


def own(now: datetime) -> list[Ending]:
    """The portal's own, however long they last; none before `ca init`."""
    if not ca.exists():
        return []
    found = []
    server = _certificate("server")
    if server is not None:
        named = [part for host in ca.hosts_of(server) for part in ("--host", host)]
        command = shlex.join(["manage.py", "ca", "renew-server", *named])
        found.append(Ending(SERVER, "", server.not_valid_after_utc, command, now))
    authority = _certificate("device-ca")
    if authority is not None:
        ends_at = authority.not_valid_after_utc - ca.LEAF_LIFE
        found.append(Ending(DEVICE_CA, "", ends_at, "manage.py ca request -o device-ca.csr", now))
    return found


def of_server(server: AccessServer, now: datetime) -> Ending | None:
    """Of an access server, once it has told; None while there is nothing to say."""
    ends_at = server.certificates_end_at
    if ends_at is None or urgency(ends_at, now) is Urgency.NONE:
        return None
    command = f"manage.py access-server bundle {server.name} --out {server.name}"
    return Ending(ACCESS_SERVER, server.name, ends_at, command, now)


def standing(now: datetime) -> list[Ending]:
    """All that ends soon or has ended, the most urgent first. Access servers that are not used do
    not count."""
    rows = AccessServer.objects.filter(enabled=True, certificates_end_at__lte=now + SOON)
    found = [each for each in own(now) if each.urgency is not Urgency.NONE]
    found += [each for row in rows if (each := of_server(row, now)) is not None]
    return sorted(found, key=lambda each: each.ends_at)


def warnings() -> list[str]:
    """For `/-/ready`: codes, such as `certificate_soon:server`, and no access server's name."""
    found = standing(clock.now())
    return sorted({f"certificate_{each.urgency.value}:{each.what}" for each in found})


@dataclass(slots=True)
class Endings:
    """A tick: the log and the metrics."""

    _reminder: Reminder = field(default_factory=Reminder)

    def look(self, now: datetime) -> None:
        metrics.ENDS.clear()
        for each in own(now):
            metrics.ENDS.labels(each.what, "").set(each.ends_at.timestamp())
        for row in AccessServer.objects.filter(enabled=True, certificates_end_at__isnull=False):
            ends_at = row.certificates_end_at
            assert ends_at is not None  # noqa: S101  (the query says so)
            metrics.ENDS.labels(ACCESS_SERVER, row.name).set(ends_at.timestamp())
        for each in standing(now):
            how = self._reminder.due(f"{each.what} {each.name}", each.ends_at, now)
            if how is not None:
                level = logging.WARNING if how is Urgency.SOON else logging.ERROR
                log.log(level, "%s: %s %s %s", each.title, each.when, each.remedy, each.command)


def _certificate(name: str) -> x509.Certificate | None:
    """None while it is being replaced, or when it is damaged: that is told elsewhere."""
    path: Path = ca.folder() / f"{name}.pem"
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        return None
