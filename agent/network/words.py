"""Findings in plain words with their remedy, in the language in use (R-CON-7, R-ASR-4)."""

from agent.i18n import _
from agent.network.findings import Code, Finding


def what(finding: Finding) -> str:
    """What is wrong, in one sentence."""
    return (
        _reach(finding.code).format(**finding.facts)
        if finding.code in _REACH
        else (_secure(finding.code).format(**finding.facts))
    )


def remedy(finding: Finding) -> str:
    """Who should do what about it."""
    return _remedy(finding.code).format(**finding.facts)


def tell(finding: Finding) -> str:
    """Both, as one line."""
    return f"{what(finding)} {remedy(finding)}"


_REACH = frozenset(
    {
        Code.NAME_UNKNOWN,
        Code.NAME_SERVER,
        Code.NO_ROUTE,
        Code.PORT_REFUSED,
        Code.PORT_BLOCKED,
        Code.PROXY_NAME,
        Code.PROXY_UNREACHABLE,
        Code.PROXY_SILENT,
        Code.PROXY_NOT_HTTP,
        Code.PROXY_WANTS_CREDENTIALS,
        Code.PROXY_REFUSES_CREDENTIALS,
        Code.PROXY_SCHEME,
        Code.PROXY_FORBIDS,
        Code.PROXY_CANNOT_REACH,
        Code.PROXY_STATUS,
        Code.CAPTIVE_PORTAL,
    }
)


def _reach(code: Code) -> str:
    return {
        Code.NAME_UNKNOWN: _("The name of {server} is not known here ({error})."),
        Code.NAME_SERVER: _("No name server says where {server} is ({error})."),
        Code.NO_ROUTE: _("This network has no way to {server} ({error})."),
        Code.PORT_REFUSED: _("The connection to {server} was refused ({error})."),
        Code.PORT_BLOCKED: _("{server} does not answer: something blocks the port."),
        Code.PROXY_NAME: _("The name of the proxy {proxy} is not known here ({error})."),
        Code.PROXY_UNREACHABLE: _("The proxy {proxy} cannot be reached ({error})."),
        Code.PROXY_SILENT: _("The proxy {proxy} takes the connection and does not answer."),
        Code.PROXY_NOT_HTTP: _("What answers at {proxy} is no HTTP proxy ({error})."),
        Code.PROXY_WANTS_CREDENTIALS: _("The proxy {proxy} asks for a user name and a password."),
        Code.PROXY_REFUSES_CREDENTIALS: _("The proxy {proxy} refuses the user name or password."),
        Code.PROXY_SCHEME: _("The proxy {proxy} asks for a sign-in ({schemes}) other than Basic."),
        Code.PROXY_FORBIDS: _("The proxy {proxy} forbids {server} (status {status})."),
        Code.PROXY_CANNOT_REACH: _(
            "The proxy {proxy} cannot reach {server} itself (status {status})."
        ),
        Code.PROXY_STATUS: _("The proxy {proxy} answers {status} instead of connecting."),
        Code.CAPTIVE_PORTAL: _(
            "A web page answers in place of {server} ({location}): a sign-in page of this network."
        ),
    }[code]


def _secure(code: Code) -> str:
    return {
        Code.TLS_INSPECTED: _(
            "The certificate shown for {server} is not trusted: it was issued by {issuer}, not by"
            " the manufacturer. Something opens the connection on its way (TLS inspection)."
        ),
        Code.WRONG_SERVER: _(
            "The certificate shown for {server} is the manufacturer's, and for another name"
            " ({subject})."
        ),
        Code.CLOCK_BEHIND: _(
            "This injector's clock is behind: it shows {now}, and {true} is over."
        ),
        Code.CLOCK_AHEAD: _("This injector's clock is ahead: it shows {now}, and it is {true}."),
        Code.SERVER_EXPIRED: _("The certificate of {server} ended {ends}."),
        Code.EXPIRED_OR_CLOCK: _(
            "The certificate of {server} ended {ends}, by this injector's clock ({now})."
        ),
        Code.TLS_CUT: _("The secure connection to {server} is cut while it is being set up."),
        Code.TLS_SILENT: _("{server} can be reached, and the secure connection is not answered."),
        Code.TLS_FAILED: _("The secure connection to {server} fails ({error})."),
        Code.OWN_EXPIRED: _("This injector's own certificate has ended."),
        Code.OWN_REVOKED: _(
            "The manufacturer has revoked this injector's certificate, as when it is moved, sold or"
            " retired. This network is not the cause."
        ),
        Code.OWN_SUPERSEDED: _(
            "This injector shows a certificate that a newer one has replaced: its files are an old"
            " copy, or another machine uses one. This network is not the cause."
        ),
        Code.OWN_REFUSED: _(
            "The manufacturer's server does not accept this injector's certificate any more. This"
            " network is not the cause."
        ),
        Code.WEBSOCKET_REFUSED: _("{server} does not take a websocket (status {status})."),
        Code.MQTT_CUT: _("{server} or something before it ends the connection when MQTT begins."),
        Code.MQTT_SILENT: _("The secure connection to {server} stands, and MQTT is not answered."),
        Code.MQTT_BLOCKED: _(
            "Something on this network stops MQTT to {server}. The injector connects by websocket"
            " instead."
        ),
        Code.MQTT_REFUSED: _("{server} refuses this injector ({error})."),
        Code.CARRIERS_CUT: _(
            "The connection to {server} is cut as soon as it is secure, by MQTT and by websocket"
            " alike, and nothing is known against this injector's certificate."
        ),
        Code.CUT_OFF: _("The connection to {server} was cut."),
        Code.IDLE_CUT: _(
            "Something on this network cuts connections that are silent for {seconds} s."
        ),
    }[code]


def _remedy(code: Code) -> str:
    firewall = _("Hospital IT: allow outbound TCP from this injector to {server}.")
    vendor = _("Call connectivity support.")
    clock = _(
        "Hospital biomed: set the date and time in the injector's own settings, or put the time"
        " server (NTP) right that it follows. It then connects by itself."
    )
    claim = _("Only the manufacturer can let it in again, with a new provisioning bundle.")
    return {
        Code.NAME_UNKNOWN: _("Hospital IT: let the name server of this network resolve the name."),
        Code.NAME_SERVER: _("Hospital IT: check the name server that this injector is given."),
        Code.NO_ROUTE: _(
            "Check the network cable and the address settings of this injector, then the firewall."
        ),
        Code.PORT_REFUSED: firewall,
        Code.PORT_BLOCKED: firewall,
        Code.PROXY_NAME: _("Put the proxy's name right at the panel, or in the name server."),
        Code.PROXY_UNREACHABLE: _("Put the proxy's name and port right at the panel."),
        Code.PROXY_SILENT: _("Hospital IT: check that the proxy takes CONNECT on this port."),
        Code.PROXY_NOT_HTTP: _("Put the proxy's port right at the panel."),
        Code.PROXY_WANTS_CREDENTIALS: _("Enter them at the panel, or exempt this injector."),
        Code.PROXY_REFUSES_CREDENTIALS: _("Enter them again at the panel."),
        Code.PROXY_SCHEME: _(
            "Hospital IT: offer Basic to this injector, or exempt it from signing in."
        ),
        Code.PROXY_FORBIDS: _("Hospital IT: let the proxy take CONNECT to {server}."),
        Code.PROXY_CANNOT_REACH: _(
            "Hospital IT: let the proxy resolve and reach {server}; check the firewall behind it."
        ),
        Code.PROXY_STATUS: _("Hospital IT: look for this injector in the proxy's log."),
        Code.CAPTIVE_PORTAL: _(
            "Hospital IT: put this injector on a network without a sign-in page, or exempt it."
        ),
        Code.TLS_INSPECTED: _("Hospital IT: exempt {server} from TLS inspection."),
        Code.WRONG_SERVER: _("Hospital IT: check where the name leads on this network.")
        + " "
        + vendor,
        Code.CLOCK_BEHIND: clock,
        Code.CLOCK_AHEAD: clock,
        Code.SERVER_EXPIRED: _("The manufacturer must renew it.") + " " + vendor,
        Code.EXPIRED_OR_CLOCK: _(
            "Check the date of this injector. If it is right, a new certificate is due."
        )
        + " "
        + vendor,
        Code.TLS_CUT: _("Hospital IT: exempt {server} from inspection and application filters."),
        Code.TLS_SILENT: _("Hospital IT: exempt {server} from inspection and application filters."),
        Code.TLS_FAILED: _("Hospital IT: exempt {server} from TLS inspection.") + " " + vendor,
        Code.OWN_EXPIRED: _(
            "The injector asks for a new one by itself. If it has none within ten minutes, check"
            " its date."
        )
        + " "
        + vendor,
        Code.OWN_REVOKED: f"{claim} {vendor}",
        Code.OWN_SUPERSEDED: f"{claim} {vendor}",
        Code.OWN_REFUSED: f"{claim} {vendor}",
        Code.WEBSOCKET_REFUSED: _("Hospital IT: let websockets to {server} through.")
        + " "
        + vendor,
        Code.MQTT_CUT: _("Hospital IT: let MQTT through to {server}.") + " " + vendor,
        Code.MQTT_SILENT: _("Hospital IT: let MQTT through to {server}.") + " " + vendor,
        Code.MQTT_BLOCKED: _("Nothing must be done. Letting MQTT through saves a little traffic."),
        Code.MQTT_REFUSED: vendor,
        Code.CARRIERS_CUT: _(
            "Hospital IT: exempt {server} from inspection and application filters. If it is exempt"
            " already, the manufacturer's server may be at fault."
        )
        + " "
        + vendor,
        Code.CUT_OFF: _("The injector connects again by itself."),
        Code.IDLE_CUT: _(
            "The injector sends signs of life more often. Hospital IT: let connections to {server}"
            " be silent for 60 s."
        ),
    }[code]
