"""Addresses as an operator writes them: `host:port`, or `[v6]:port`."""

from dataclasses import dataclass

from django.utils.translation import gettext as _

from fleet.core.errors import Invalid


@dataclass(frozen=True, slots=True)
class Address:
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Read `host:port` or `[v6]:port`. Raises Invalid."""
    host, _colon, port = text.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise Invalid(
            _("“%(text)s” is not an address. Write host:port, such as 127.0.0.1:8000.")
            % {"text": text}
        )
    return Address(host, int(port))
