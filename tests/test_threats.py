"""docs/threats.md and what it names: modules, tests, mutations, experiments (R-ASR-1).

A line of the page is a promise; here it is held to the code, both ways.
"""

import ast
import functools
import re

import pytest

from tests import faults
from tests.mutation import ROOT, TABLE

PAGE = ROOT / "docs/threats.md"
# Lines of each part: none of the threat model may be missing.
LINES = {
    "The gate": 14,
    "Identity and enrolment": 6,
    "Signing in": 8,
    "Consent": 4,
    "Faults": 15,
    "Beside the lines above": 6,
}


def lines() -> list[tuple[str, list[str]]]:
    """(part, cells) of every line of every table."""
    found, part = [], ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            part = line.removeprefix("## ")
        elif line.startswith("| ") and not line.startswith(("| attack |", "| fault |", "| what |")):
            found.append((part, [cell.strip() for cell in line.strip("|").split(" | ")]))
    return found


def named_tests(cell: str) -> list[str]:
    """`file::name` of each test; a name alone is of the file before it."""
    named, file = [], ""
    for reference in re.findall(r"`([^`]+)`", cell):
        before, _, name = reference.partition("::")
        file = before or file
        named.append(f"{file}::{name}")
    return named


@functools.cache
def defined_in(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in tree.body if isinstance(node, kinds))


def taken_away(cell: str) -> list[str]:
    return re.findall(r"\*([^*]+)\*", cell)


def test_every_line_of_the_threat_model_is_there() -> None:
    parts = [part for part, _ in lines()]
    assert {part: parts.count(part) for part in dict.fromkeys(parts)} == LINES


@pytest.mark.parametrize(("part", "cells"), lines(), ids=lambda value: value[0][:40])
def test_a_line_names_what_there_is(part: str, cells: list[str]) -> None:
    _, _, modules, tests, mutations = cells
    assert modules
    for module in re.findall(r"`([^`]+)`", modules):
        assert (ROOT / module).is_file(), module
    named = named_tests(tests)
    assert named
    for test in named:
        file, _, name = test.partition("::")
        assert name in defined_in(file), test
    known = {mutation.name: mutation for mutation in TABLE}
    assert taken_away(mutations)
    for mutation in taken_away(mutations):
        assert mutation in known
        assert set(known[mutation].tests) & set(named), f"{mutation}: watched by another test"


def test_every_mutation_belongs_to_a_line() -> None:
    named = [name for _, cells in lines() for name in taken_away(cells[4])]
    assert sorted(named) == sorted(mutation.name for mutation in TABLE)


def test_every_experiment_has_its_line_in_its_place() -> None:
    named = [
        re.findall(r"\(`([a-z-]+)`\)", cells[0]) for part, cells in lines() if part == "Faults"
    ]
    assert [name for names in named for name in names] == list(faults.ORDER)
