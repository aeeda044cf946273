"""Why the gate refuses or ends a connection, and the exceptions that carry it.

`Reason` is closed: it goes to the audit, to the metrics and to nobody's screen untranslated.
"""

from enum import StrEnum


class Reason(StrEnum):
    # before a device is known
    NOT_TLS = "not_tls"  # no ClientHello within its size and time
    PROXY = "proxy"  # our own proxy sent no PROXY header, or a broken one
    CROWDED = "crowded"  # evicted: its handshake stalled while others waited for the place
    HANDSHAKE = "handshake"  # TLS failed: no certificate, a foreign CA, expired, too old a version
    NO_IDENTITY = "no_identity"  # common name and SAN do not agree on one device
    CERTIFICATE_EXPIRED = "certificate_expired"
    DENIED = "denied"  # the deny-list, or whatever else the portal asks of an identity
    # CONNECT
    CONNECT_LATE = "connect_late"
    NOT_CONNECT = "not_connect"
    PROTOCOL_LEVEL = "protocol_level"
    CLIENT_ID = "client_id"  # not the certificate's device
    WILL = "will"
    USER_NAME = "user_name"
    KEEPALIVE = "keepalive"
    # any packet
    WEBSOCKET = "websocket"  # no upgrade to MQTT, or frames that break RFC 6455
    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    UNEXPECTED = "unexpected"  # a packet this side never asked for
    SECOND_CONNECT = "second_connect"
    RETAINED = "retained"
    QOS = "qos"
    PACKET_ID = "packet_id"  # zero, or still in flight
    TOPIC = "topic"  # publish outside the grant
    FILTER = "filter"  # subscription outside the grant
    # a live connection
    SILENT = "silent"
    STUCK = "stuck"  # one packet took too long to arrive
    NOT_READING = "not_reading"
    TAKEN_OVER = "taken_over"
    KICKED = "kicked"
    DISCONNECTED = "disconnected"  # the device said goodbye
    LOST = "lost"  # the socket closed
    BROKER = "broker"  # amqtt refused it, ended it or did not answer
    LINK_LOST = "link_lost"  # the access server it is on cannot be reached from the portal
    STOPPING = "stopping"
    INTERNAL = "internal"

    @property
    def ordinary(self) -> bool:
        """Part of life; every other reason is a refusal, told to the handler for the audit."""
        return self in _ORDINARY


_ORDINARY = frozenset(
    {
        Reason.SILENT,
        Reason.TAKEN_OVER,
        Reason.KICKED,
        Reason.DISCONNECTED,
        Reason.LOST,
        Reason.BROKER,
        Reason.LINK_LOST,
        Reason.STOPPING,
        Reason.INTERNAL,
    }
)

# What CONNACK says to a refused CONNECT (MQTT 3.1.1 section 3.2.2.3); other reasons just close.
CONNACK = {
    Reason.PROTOCOL_LEVEL: 1,
    Reason.CLIENT_ID: 2,
    Reason.BROKER: 3,
    Reason.USER_NAME: 4,
    Reason.WILL: 5,
    Reason.KEEPALIVE: 5,
}


class GateError(Exception):
    """Base of what goes wrong on our side of the gate."""


class NotStarted(GateError):
    """The broker or the gate would run without a protection it depends on."""


class PeerError(Exception):
    """The peer broke a rule; `reason` says which, `device` who it is where that is certain."""

    def __init__(self, reason: Reason, device: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.device = device
