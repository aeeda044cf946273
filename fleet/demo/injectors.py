"""The state directories of the demo's injectors: claim, settings, service ports."""

import json
import os
import random
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography import x509

from fleet.accounts.models import Language
from fleet.core import clock
from fleet.core.errors import Conflict
from fleet.core.files import write_private
from fleet.demo.plan import DevicePlan, Plan
from fleet.demo.reading import damaged, read_object, start_afresh
from fleet.enrolment import selectors, services
from fleet.inventory.models import Device, ProductLine, Site

SERVICES = ("ssh", "console", "web")
# Below the range that systems take for outgoing connections, so that a port stays free.
PORTS = range(20_000, 32_000)
_TOO_OLD = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Injector:
    plan: DevicePlan
    state_dir: Path
    ports: dict[str, int]


def prepare(plan: Plan, sites: dict[str, Site], data: Path, trust_key: bytes) -> list[Injector]:
    """A state directory for each device, as manufacture would leave it; made ones stay.

    Raises Conflict with the remedy when what is there cannot go on.
    """
    pace = _pace()
    known = [_settings(data / "devices" / device.serial) for device in plan.devices]
    taken = {port for settings in known for port in settings.get("services", {}).values()}
    free = _free_ports(taken)
    injectors = []
    for device, earlier in zip(plan.devices, known, strict=True):
        state = data / "devices" / device.serial
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        _provision(device, state, sites[device.site], trust_key)
        french = plan.organisation_of(device).language == Language.FR_CA
        ports = earlier.get("services") or {name: next(free) for name in SERVICES}
        settings = {
            "driver": "simulator",
            "services": ports,
            "language": "fr-CA" if french else "en",
            "seed": earlier.get("seed", plan.devices.index(device) + 1),
            "pace": device.pace * pace,
        }
        write_private(state / "driver.json", json.dumps(settings, indent=1).encode())
        injectors.append(Injector(device, state, ports))
    return injectors


def _pace() -> float:
    text = os.environ.get("PATENCY_DEMO_PACE", "1")
    try:
        pace = float(text)
    except ValueError:
        pace = 0.0
    if not 0.001 <= pace <= 100:
        raise Conflict(f"PATENCY_DEMO_PACE is {text!r}. Give a number from 0.001 to 100.")
    return pace


def _settings(state: Path) -> dict[str, Any]:
    path = state / "driver.json"
    try:
        settings = read_object(path)
    except FileNotFoundError:
        return {}
    services, seed = settings.get("services", {}), settings.get("seed", 1)
    if not isinstance(services, dict) or not all(
        isinstance(number, int) for number in (seed, *services.values())
    ):
        raise damaged(path)
    return settings


def _free_ports(taken: set[int]) -> Iterator[int]:
    ports = list(PORTS)
    random.shuffle(ports)  # so that two demos on one machine seldom try the same
    for port in ports:
        if port in taken:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        yield port


def _provision(device: DevicePlan, state: Path, site: Site, trust_key: bytes) -> None:
    path = state / "provision.json"
    line = device.product_line.value
    enrolled = Device.objects.filter(product_line=line, serial=device.serial).exists()
    if path.exists():
        _point_here(path, state / "servers.json")
        _check_certificate(state)
        return
    if enrolled:
        raise start_afresh(state, f"{device.serial} is enrolled, and its provision.json is gone")
    claim = services.create_claim(
        serial=device.serial,
        product_line=ProductLine.objects.get(pk=line),
        site=site,
        asset_number=device.asset_number,
        room=device.room,
        now=clock.now(),
    )
    bundle = selectors.provisioning_bundle(
        serial=device.serial, product_line=line, claim=claim, trust_key=trust_key
    )
    write_private(path, json.dumps(bundle, indent=1).encode())


def _point_here(provision: Path, servers: Path) -> None:
    """The gate, or the access origin, may listen elsewhere than the last time: only the demo may
    tell a device so."""
    here = selectors.access_servers()
    bundle = read_object(provision)
    before = json.dumps(bundle)
    bundle["enrol"] = here[0]
    if isinstance(anchors := bundle.get("anchors"), dict):
        anchors.pop("access_origin", None)
        anchors |= selectors.access_origin()
    if json.dumps(bundle) != before:
        write_private(provision, json.dumps(bundle, indent=1).encode())
    if servers.exists() and _written(servers) != here:
        write_private(servers, json.dumps(here).encode())


def _written(path: Path) -> Any:
    """What is there; None when it is damaged, and is written anew."""
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return None


def _check_certificate(state: Path) -> None:
    path = state / "device.pem"
    if not path.exists():
        return
    try:
        leaf = x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError as error:
        raise damaged(path) from error
    if leaf.not_valid_after_utc < clock.now() + _TOO_OLD:
        raise start_afresh(state, "its certificate has expired")
