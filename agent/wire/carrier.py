"""How a device shows at the one port which carrier it means to use, before TLS begins (ADR 0009).

The gate reads the ALPN list of the ClientHello and only then chooses whether to demand a
certificate, so a device must say that it is one: with `mqtt`, or with `patency-device` behind the
`http/1.1` that a browser offers as well.
"""

ALPN_MQTT = "mqtt"
# No word of this contains "mqtt": a firewall that refuses MQTT must find nothing to refuse.
ALPN_DEVICE = "patency-device"
ALPN_HTTP = "http/1.1"

RAW = (ALPN_MQTT,)  # what a client offers for MQTT straight over TLS; the server answers `mqtt`
WEBSOCKET = (ALPN_HTTP, ALPN_DEVICE)  # for MQTT over a websocket; the server answers `http/1.1`

WEBSOCKET_PATH = "/mqtt"
WEBSOCKET_PROTOCOL = "mqtt"  # Sec-WebSocket-Protocol, MQTT 3.1.1 section 6
