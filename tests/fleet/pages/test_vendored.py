"""Vendored files are what their manifest says, and nothing else is there."""

import json
import shutil
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from fleet.pages import vendored


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(vendored.VENDOR, tmp_path / "vendor"))


def test_the_files_are_as_listed() -> None:
    for root in vendored.ROOTS:
        assert vendored.check(root) == []
    call_command("vendor", "--check", verbosity=0)


def test_a_changed_file_is_found(copy: Path) -> None:
    with (copy / "htmx" / "htmx.min.js").open("a") as file:
        file.write(" ")
    assert ["htmx/htmx.min.js" in problem for problem in vendored.check(copy)] == [True]


def test_a_missing_and_an_unlisted_file_are_found(copy: Path) -> None:
    (copy / "uplot" / "LICENSE").unlink()
    (copy / "uplot" / "extra.js").write_text("1")
    problems = " ".join(vendored.check(copy))
    assert "uplot/LICENSE: listed but missing" in problems
    assert "uplot/extra.js: not listed" in problems


def test_a_licence_and_an_exact_version_are_required(copy: Path) -> None:
    listed = json.loads((copy / "manifest.json").read_text())
    kept = [entry for entry in listed if entry["file"] != "htmx/LICENSE"]
    kept[0]["version"] = "^2"
    (copy / "manifest.json").write_text(json.dumps(kept))
    problems = " ".join(vendored.check(copy))
    assert "htmx: holds no licence" in problems
    assert "not exact" in problems


def test_the_command_fails_aloud(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vendored, "check", lambda root: ["x: differs"])
    with pytest.raises(CommandError, match="x: differs"):
        call_command("vendor", "--check")


def test_a_sprite_holds_each_icon_as_a_symbol() -> None:
    made = vendored.sprite(
        {"b": '<svg a="1">\n  <path d="M0 0" />\n</svg>', "a": "<svg><g/></svg>"}
    )
    text = made.decode()
    assert text.index('id="a"') < text.index('id="b"')
    assert '<path d="M0 0" />' in text
    assert "style" not in text
