"""docs/cli.md and the command say the same: options, exit codes, columns."""

import re
from pathlib import Path

import click

from fleet.client.errors import Exit
from fleet.client.main import DEVICE_COLUMNS, main

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
SPECIALISTS = PAGE[: PAGE.index("## `patency-agent`")]


def commands(group: click.Group, prefix: str = "patency") -> dict[str, click.Command]:
    found: dict[str, click.Command] = {}
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found |= commands(command, f"{prefix} {name}")
        else:
            found[f"{prefix} {name}"] = command
    return found


def test_every_command_and_option_is_on_the_page() -> None:
    for name, command in commands(main).items():
        assert f"`{name}" in SPECIALISTS, name
        section = SPECIALISTS[SPECIALISTS.index(f"`{name}") :]
        section = section[: section.index("\n### ")] if "\n### " in section else section
        for parameter in command.params:
            if isinstance(parameter, click.Option) and name != "patency watch":
                assert any(option in section for option in parameter.opts), (name, parameter.opts)


def test_every_exit_code_is_on_the_page() -> None:
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", SPECIALISTS, flags=re.M)}
    assert listed == {exit.value for exit in Exit}


def test_the_columns_of_devices_are_those_of_the_contract() -> None:
    assert ", ".join(f'"{column}"' for column in DEVICE_COLUMNS) in SPECIALISTS
