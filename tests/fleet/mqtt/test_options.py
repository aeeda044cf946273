"""What an operator may set for the server process, and how a mistake is answered."""

import ipaddress

import pytest

from fleet.core.errors import Invalid
from fleet.mqtt.options import Address, parse_address, parse_networks


def test_networks() -> None:
    assert parse_networks([]) == ()
    assert parse_networks(["10.0.0.5", "10.1.0.0/16", "2001:db8::/32"]) == (
        ipaddress.ip_network("10.0.0.5/32"),
        ipaddress.ip_network("10.1.0.0/16"),
        ipaddress.ip_network("2001:db8::/32"),
    )


@pytest.mark.parametrize("text", ["proxy.example", "10.0.0.5:443", "10.0.0.5/8", "10.0.0", "*"])
def test_what_is_no_network_is_named_with_its_remedy(text: str) -> None:
    with pytest.raises(Invalid, match=r"PATENCY_PROXIES.*10\.1\.0\.0/16") as caught:
        parse_networks([text])
    assert text in str(caught.value)


def test_addresses() -> None:
    assert parse_address("127.0.0.1:8443") == Address("127.0.0.1", 8443)
    assert parse_address("[::1]:8443") == Address("::1", 8443)
    for text in ("8443", ":8443", "host", "host:x", "host:70000"):
        with pytest.raises(Invalid, match="host:port"):
            parse_address(text)
