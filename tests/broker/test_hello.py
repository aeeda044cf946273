"""The ClientHello reader, against OpenSSL's own, cut ones, and noise (ADR 0006)."""

import random
import ssl
import struct

import pytest

from broker import hello
from tests.scale import scaled


def client_hello(alpn: list[str], *, tls12: bool = False) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if tls12:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    if alpn:
        context.set_alpn_protocols(alpn)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize("tls12", [True, False])
@pytest.mark.parametrize("alpn", [[], ["mqtt"], ["h2", "http/1.1"], ["http/1.1", "mqtt"]])
def test_what_openssl_says(alpn: list[str], tls12: bool) -> None:
    data = client_hello(alpn, tls12=tls12)
    found = hello.parse(data)
    assert found == hello.Hello(tuple(name.encode() for name in alpn))
    for end in range(len(data)):
        assert hello.parse(data[:end]) is None


def test_split_over_records() -> None:
    data = client_hello(["mqtt"])
    message = data[5:]
    records = b"".join(
        b"\x16\x03\x01" + struct.pack(">H", len(message[at : at + 50])) + message[at : at + 50]
        for at in range(0, len(message), 50)
    )
    assert hello.parse(records) == hello.Hello((b"mqtt",))


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x10\x17\0\x04MQTT",
        b"\x15\x03\x01\0\x02\x01\0",
        b"\x16\x02",
        b"\x16\x03\x01\0\0",
        b"\x16\x03\x01\xff\xff",
        b"\x16\x03\x01\0\x04\x02\0\0\0",  # a ServerHello
        b"\x16\x03\x01\0\x04\x01\xff\xff\xff",
        b"\x16\x03\x01\0\x05\x01\0\0\x01\0",  # a ClientHello of one byte
        b"\x80\x2e\x01",  # SSL 2
    ],
)
def test_not_a_client_hello(data: bytes) -> None:
    with pytest.raises(hello.NotTLS):
        hello.parse(data)


def test_a_hello_that_goes_on_for_ever() -> None:
    endless = b"\x16\x03\x01\0\x01\x01" + b"\x16\x03\x01\0\x01\0" * 4000
    with pytest.raises(hello.NotTLS):
        hello.parse(endless[: hello.MAX_HELLO])


def test_a_hello_without_extensions() -> None:
    message = b"\x03\x03" + bytes(32) + b"\0" + b"\0\x02\x13\x01" + b"\x01\0"
    data = b"\x01" + len(message).to_bytes(3) + message
    assert hello.parse(b"\x16\x03\x01" + struct.pack(">H", len(data)) + data) == hello.Hello(())


def test_fuzz() -> None:
    """Nothing but a Hello, None or NotTLS comes out."""
    random_ = random.Random(8446)
    seeds = [client_hello(["mqtt"]), client_hello(["h2", "http/1.1"], tls12=True)]
    outcomes = {"hello": 0, "more": 0, "not": 0}
    for _ in range(scaled(100_000)):
        data = bytearray(random_.choice(seeds))
        for _ in range(random_.randrange(1, 6)):
            data[random_.randrange(len(data))] = random_.randrange(256)
        try:
            found = hello.parse(bytes(data))
            outcomes["hello" if found else "more"] += 1
        except hello.NotTLS:
            outcomes["not"] += 1
    assert all(outcomes.values()), outcomes
