"""A portal process for benches and crash tests: `python -m tests.bench._portal DATA DEVICES`.

Prints one line of JSON when it serves: port of the web, port of the gate, a specialist's token and
the devices with their certificates. Ends with SIGTERM, and then prints another: when the service
was called for each session, on the clock that all processes of this machine share.
"""

import asyncio
import json
import os
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any


def seed(data: Path, count: int) -> dict[str, Any]:
    """A vendor's specialist, a hospital, and `count` devices with credentials in `data`."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )
    from django.core.management import call_command

    from fleet.accounts.models import Organisation, User
    from fleet.accounts.services import issue_token
    from fleet.core import clock
    from fleet.enrolment import ca
    from fleet.inventory.models import Device, ProductLine, Site
    from tests.entitled import entitle

    now = clock.now()
    call_command("migrate", verbosity=0, interactive=False)
    ca.init(now=now)
    vendor = Organisation.objects.create(name="Vendor", kind="vendor")
    hospital = Organisation.objects.create(name="Hospital", kind="hospital")
    user = User.objects.create_user(username="bench", organisation=vendor, role="specialist")
    site = Site.objects.create(organisation=hospital, name="Main")
    line = ProductLine.objects.create(code="ct-dual", name="Dual", modality="CT")
    devices = []
    for number in range(count):
        device = Device.objects.create(
            serial=f"SN-{number}", product_line=line, site=site, organisation=hospital,
            services={"ssh": "os"}, clinical_state="idle", created_at=now,
        )  # fmt: skip
        entitle(line.pk, device.serial)
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = ca.issue_device(device.pk, key.public_key(), now=now)
        chain = leaf.public_bytes(Encoding.PEM).decode() + ca.pem("device-ca")
        (data / f"{number}.pem").write_text(chain)
        (data / f"{number}.key").write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        devices.append({"device": device.pk, "certificate": str(data / f"{number}.pem"),
                        "key": str(data / f"{number}.key")})  # fmt: skip
    return {
        "token": issue_token(user, "bench", timedelta(hours=1)),
        "server_ca": ca.pem("server-ca"),
        "devices": devices,
    }


async def _serve(found: dict[str, Any]) -> None:
    from fleet.mqtt.options import Address, ServeOptions
    from fleet.mqtt.server import Running, serve

    async def tell(running: Running) -> None:
        while not running.web.started:  # noqa: ASYNC110  (uvicorn has no event for it)
            await asyncio.sleep(0.01)
        web = running.web.servers[0].sockets[0].getsockname()[1]
        print(json.dumps({**found, "web": web, "gate": running.gate.port}), flush=True)
        await asyncio.Event().wait()

    options = ServeOptions(http=Address("127.0.0.1", 0), mqtt=Address("127.0.0.1", 0))
    await serve(options, companion=tell)


def main(data: Path, count: int) -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = "fleet.settings"
    os.environ["PATENCY_DATA"] = str(data)
    import django
    import uvloop

    django.setup()
    kept = data / "found.json"
    if not kept.exists():  # else: the same portal, started again
        kept.write_text(json.dumps(seed(data, count)))
    found = json.loads(kept.read_text())
    asked = _watch_requests()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(found))
    print(json.dumps(asked), flush=True)


def _watch_requests() -> dict[str, float]:
    """Note when access.services.request is called: session -> seconds."""
    from fleet.access import services

    asked: dict[str, float] = {}
    real = services.request

    def request(**fields: Any) -> Any:
        started = time.perf_counter()
        session = real(**fields)
        asked[session.pk] = started
        return session

    services.request = request
    return asked


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
