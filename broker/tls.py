"""The TLS contexts behind the one port (R-CON-6: TLS 1.2 or later, 128 bit or stronger)."""

import ssl
from pathlib import Path

from agent.wire import carrier
from broker.options import GateOptions

# TLS 1.3 brings its own; for 1.2 forward secrecy and AEAD only.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """A server's, without any opinion about clients yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.load_cert_chain(certificate, key)
    return context


def device_context(options: GateOptions, alpn: str) -> ssl.SSLContext:
    """A client certificate of the device CA is required, and nothing else is trusted.

    `alpn` is what the server answers: it tells MQTT from MQTT over a websocket.

    No session tickets: a resumed session would skip OpenSSL's look at the chain.
    """
    context = server_context(options.certificate, options.key)
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    context.set_alpn_protocols([alpn])
    context.verify_mode = ssl.CERT_REQUIRED
    for path in options.device_ca:
        context.load_verify_locations(cafile=path)
    return context


def web_context(options: GateOptions) -> ssl.SSLContext:
    """For browsers and the command line: no client certificate."""
    context = server_context(options.certificate, options.key)
    context.set_alpn_protocols([carrier.ALPN_HTTP])
    return context
