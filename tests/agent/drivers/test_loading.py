"""A product line is a module and a file of settings; nothing else names it (R-CON-1)."""

import json
from pathlib import Path

import pytest

from agent import drivers
from agent.drivers.base import DriverError
from agent.wire.catalogue import ProductLineCode


def state_dir(path: Path, **changes: object) -> Path:
    driver = {"driver": "simulator", "services": {"ssh": 2222}, "language": "en", "seed": 3}
    (path / "driver.json").write_text(json.dumps(driver | changes))
    (path / "provision.json").write_text(
        json.dumps({"v": 1, "serial": "SN-1", "product_line": "mr-dual", "claim": "x"})
    )
    return path


@pytest.mark.parametrize("line", ProductLineCode)
def test_every_product_line_of_the_catalogue_has_a_driver(
    tmp_path: Path, line: ProductLineCode
) -> None:
    state_dir(tmp_path)
    (tmp_path / "provision.json").write_text(json.dumps({"serial": "1", "product_line": line}))
    driver = drivers.load(tmp_path)
    assert driver.product_line is line
    assert driver.services()["ssh"].port == 2222


def test_the_version_of_the_software_can_be_another(tmp_path: Path) -> None:
    driver = drivers.load(state_dir(tmp_path, software_version="9.8.7"))
    assert driver.software_version == "9.8.7"


@pytest.mark.parametrize(
    "changes",
    [
        {"driver": "shell"},
        {"services": {"ssh": 0}},
        {"services": {"SSH": 22}},
        {"services": {"ssh": "22"}},
        {"pace": 0},
        {"seed": 1.5},
        {"software_version": "new"},
    ],
)
def test_bad_settings_are_refused_by_name_of_the_file(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    with pytest.raises(DriverError, match=r"driver\.json cannot be used.*Put that field right"):
        drivers.load(state_dir(tmp_path, **changes))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"product_line": "../../x", "serial": "1"}'])
def test_an_unknown_product_line_is_refused(tmp_path: Path, text: str) -> None:
    state_dir(tmp_path)
    (tmp_path / "provision.json").write_text(text)
    with pytest.raises(DriverError, match="Place the provisioning bundle"):
        drivers.load(tmp_path)


def test_no_state_directory_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(DriverError, match="Is this an injector's state directory"):
        drivers.load(tmp_path / "nowhere")


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    state_dir(tmp_path)
    (tmp_path / "driver.json").write_bytes(b" " * 70_000)
    with pytest.raises(DriverError, match="at most"):
        drivers.load(tmp_path)
