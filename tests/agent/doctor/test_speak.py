"""The doctor's few words of MQTT, to servers that answer in every way (R-CON-7)."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest

from agent.doctor import speak
from agent.network.findings import Failure
from broker import packets
from tests.tls import Authority, Issued

AUTHORITY = Authority()


def test_connect_is_what_the_gate_reads() -> None:
    packet = speak.connect("device-0001")
    assert packet[0] == packets.CONNECT
    read = packets.connect(memoryview(packet)[2:])
    assert (read.client_id, read.keepalive_s) == ("device-0001", speak.KEEPALIVE_S)


@contextmanager
def server(
    say: Callable[[ssl.SSLSocket], None], device: Issued, patience_s: float = 10
) -> Iterator[ssl.SSLSocket]:
    """A blocking TLS server that wants a certificate, and our end of a connection to it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.server.load(context)
    context.verify_mode = ssl.CERT_REQUIRED
    for each in (AUTHORITY.root, AUTHORITY.intermediate):
        context.load_verify_locations(cadata=each.chain_pem.decode())

    def serve() -> None:
        sock, _address = listener.accept()
        try:
            with context.wrap_socket(sock, server_side=True) as tls:
                say(tls)
        except OSError:
            sock.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        plain = socket.create_connection(listener.getsockname(), 5)
        client = AUTHORITY.client_context(device)
        with client.wrap_socket(plain, server_hostname="localhost") as ours:
            ours.settimeout(patience_s)
            yield ours
        thread.join(5)


def answering(data: bytes) -> Callable[[ssl.SSLSocket], None]:
    def say(tls: ssl.SSLSocket) -> None:
        tls.recv(1000)
        tls.sendall(data)

    return say


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (b"\x20\x02\x00\x00", None),
        (b"\x20\x02\x00\x05", Failure.CODE),
        (b"HTTP/1.1", Failure.PROTOCOL),
        (b"\x20\x02", Failure.CUT),
        (b"", Failure.CUT),
    ],
)
def test_an_answer_to_connect(answer: bytes, failure: Failure | None) -> None:
    with server(answering(answer), AUTHORITY.device("device-0001")) as ours:
        ended = speak.greet(ours, "device-0001")
    assert (ended[0] if ended else None) is failure


def test_no_answer_is_late() -> None:
    with server(
        lambda tls: (tls.recv(1000), tls.recv(1000), None)[2], AUTHORITY.device("d-000001"), 0.5
    ) as ours:
        ended = speak.greet(ours, "d-000001")
        assert ended is not None
        assert ended[0] is Failure.TIMEOUT


def test_listening_hears_the_alert_about_a_certificate_that_is_over() -> None:
    over = AUTHORITY.device("device-0001", starts=-timedelta(days=40))
    with server(answering(b""), over) as ours:
        ended = speak.listen(ours)
    assert ended is not None
    assert ended[0] is Failure.ALERT
    assert "CERTIFICATE_EXPIRED" in ended[1]


def test_a_server_that_bears_with_us_says_nothing() -> None:
    with server(answering(b""), AUTHORITY.device("device-0001"), 0.5) as ours:
        assert speak.listen(ours) is None
