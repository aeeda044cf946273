"""Words for how the link to an access server is."""

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from broker.link.wire import Trouble

TROUBLES: dict[str, str | Promise] = {
    Trouble.NOT_YET: _("Connecting for the first time."),
    Trouble.UNREACHABLE: _(
        "It does not answer at its link. Is it running, and does its firewall let the portal in?"
    ),
    Trouble.TLS: _("The certificates do not fit. Make its bundle again, and restart it."),
    Trouble.NAME: _("Another access server answers there. Check the address of the link."),
    Trouble.REFUSED: _("It refused the portal. Make its bundle again, and restart it."),
    Trouble.SILENT: _("It stopped answering. The portal tries again by itself."),
    Trouble.LOST: _("The link broke. The portal tries again by itself."),
    Trouble.PROTOCOL: _("It does not speak as expected. Is it of the same release as the portal?"),
}
