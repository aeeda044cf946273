"""The roster's end, said while there is time: without one nobody gets into any injector (R-ACC-9).

It lives seven days, so that its keeper signs again every week; a holiday is told of on these pages
before it becomes a night without access.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from agent.wire.catalogue import EventPriority
from fleet.access.models import Roster
from fleet.core import clock

SOON = timedelta(days=3)
URGENT = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Ending:
    """As fleet.enrolment.endings has it for certificates: title, when, remedy and command."""

    ends_at: datetime
    now: datetime
    name: str = ""  # it has no page of its own

    @property
    def priority(self) -> str:
        urgent = self.ends_at - self.now <= URGENT
        return (EventPriority.HIGH if urgent else EventPriority.MEDIUM).value

    @property
    def title(self) -> str:
        return _("The roster of specialists")

    @property
    def when(self) -> str:
        left = self.ends_at - self.now
        if left <= timedelta(0):
            return _("Over since %(time)s UTC.") % {"time": f"{self.ends_at:%Y-%m-%d %H:%M}"}
        hours = int(left.total_seconds() // 3600)
        return ngettext(
            "Until %(time)s UTC: %(hours)d hour left.",
            "Until %(time)s UTC: %(hours)d hours left.",
            hours,
        ) % {"time": f"{self.ends_at:%Y-%m-%d %H:%M}", "hours": hours}

    @property
    def remedy(self) -> str:
        return _("Where the trust key is (docs/trust.md); then import here what it signed:")

    @property
    def command(self) -> str:
        return "manage.py roster import roster.json"


def standing(now: datetime) -> list[Ending]:
    """The newest roster, if it ends soon; none before the first was imported."""
    newest = Roster.objects.order_by("-version").first()
    if newest is None or newest.expires_at - now > SOON:
        return []
    return [Ending(newest.expires_at, now)]


def warnings() -> list[str]:
    """For `/-/ready`: `roster_soon` or `roster_over`."""
    now = clock.now()
    return ["roster_over" if each.ends_at <= now else "roster_soon" for each in standing(now)]
