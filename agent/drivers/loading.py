"""Reads `driver.json` and `provision.json` of a state directory and makes its driver."""

import importlib
import json
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from agent.drivers.base import Driver, DriverError, DriverSettings
from agent.wire.catalogue import ProductLineCode
from agent.wire.messages import Semver, ServiceName

_MAX_BYTES = 64 * 1024
_Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class _File(msgspec.Struct, frozen=True, kw_only=True):
    """`driver.json`. `language` and other keys belong to other parts of the agent."""

    driver: Literal["simulator"]
    services: dict[ServiceName, _Port]
    seed: int = 0
    pace: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 1.0
    software_version: Semver | None = None


def settings(state_dir: Path) -> DriverSettings:
    """The driver's settings. Raises DriverError naming the file and what to put right."""
    path = state_dir / "driver.json"
    try:
        file = msgspec.json.decode(_read(path), type=_File)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise DriverError(f"{path} cannot be used: {error}. Put that field right.") from error
    line, serial = _provisioned(state_dir / "provision.json")
    return DriverSettings(
        product_line=line,
        serial=serial,
        services=file.services,
        seed=file.seed,
        pace=file.pace,
        software_version=file.software_version,
        state_dir=state_dir,
    )


def load(state_dir: Path) -> Driver:
    """The driver of the injector in `state_dir`. Raises DriverError."""
    chosen = settings(state_dir)
    name = f"agent.drivers.{chosen.product_line.value.replace('-', '_')}"
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise DriverError(
            f"this agent has no driver for {chosen.product_line}: install a newer agent"
        ) from error
    driver: Driver = module.create(chosen)
    return driver


def _read(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DriverError(
            f"{path} cannot be read ({error.strerror}). Is this an injector's state directory?"
        ) from error
    if len(data) > _MAX_BYTES:
        raise DriverError(f"{path} has {len(data)} bytes, at most {_MAX_BYTES} are read")
    return data


def _provisioned(path: Path) -> tuple[ProductLineCode, str]:
    try:
        bundle = json.loads(_read(path))
        return ProductLineCode(bundle["product_line"]), str(bundle["serial"])
    except (ValueError, KeyError, TypeError) as error:
        raise DriverError(
            f"{path} names no product line that this agent knows ({error}). "
            "Place the provisioning bundle of this injector there."
        ) from error
