"""Access servers for tests."""

from datetime import date
from typing import Any

from fleet.accounts.models import User
from fleet.core import clock
from fleet.servers import services
from fleet.servers.models import AccessServer

FIELDS: dict[str, Any] = {
    "address": "192.0.2.7",
    "port": 443,
    "place": "Halifax",
    "region": "ca-east",
    "link": "10.77.0.1:8883",
    "position": 10,
}


def add(actor: User, name: str, *, listed_on: date | None = None, **fields: Any) -> AccessServer:
    """From today on, unless told otherwise."""
    now = clock.now()
    return services.add(
        actor=actor,
        fields={"name": name, "host": f"{name}.example.org", **FIELDS, **fields},
        listed_on=listed_on or now.date(),
        now=now,
    )
