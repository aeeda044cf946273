"""What a site sets about its network stays in one private file (R-CON-2, R-PRV-2)."""

import json
import stat
from pathlib import Path

import pytest

from agent.errors import StateError
from agent.network import settings
from agent.network.settings import Proxy, Settings


def test_nothing_is_set_where_there_is_no_file(tmp_path: Path) -> None:
    assert settings.load(tmp_path) == Settings()


def test_what_was_set_reads_back_from_a_private_file(tmp_path: Path) -> None:
    new = settings.changed(
        Settings(), {"proxy": "proxy.example:3128", "user": "ct2", "password": "s3cret"}
    )
    settings.save(tmp_path, new)
    path = tmp_path / "network.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert settings.load(tmp_path) == new
    assert new.proxy == Proxy(host="proxy.example", port=3128, user="ct2", password="s3cret")


def test_the_password_is_shown_to_nobody() -> None:
    new = settings.changed(Settings(), {"proxy": "p.example:1", "user": "u", "password": "s3cret"})
    assert "s3cret" not in f"{new} {new!r} {new.proxy} {new.proxy!r} {new.shown()}"


def test_one_is_set_without_the_other() -> None:
    first = settings.changed(Settings(), {"proxy": "[2001:db8::1]:8080"})
    assert str(first.proxy) == "[2001:db8::1]:8080"
    both = settings.changed(first, {"up_bytes_s": 64_000})
    assert both.proxy == first.proxy
    assert settings.changed(both, {"proxy": None}) == Settings(up_bytes_s=64_000)
    assert settings.changed(both, {"up_bytes_s": None}) == first


def test_a_password_is_kept_for_the_same_user_at_the_same_proxy_alone() -> None:
    first = settings.changed(Settings(), {"proxy": "p.example:1", "user": "u", "password": "s"})
    assert settings.changed(first, {"proxy": "p.example:1", "user": "u"}) == first
    for change in (
        {"proxy": "p.example:1", "user": "other"},
        {"proxy": "p.example:2", "user": "u"},
        {"proxy": "evil.example:1", "user": "u"},
        {"proxy": "p.example:1"},
    ):
        proxy = settings.changed(first, change).proxy
        assert proxy is not None
        assert proxy.password is None


@pytest.mark.parametrize(
    "change",
    [
        {"proxy": "proxy.example"},
        {"proxy": "proxy.example:port"},
        {"proxy": "proxy.example:0"},
        {"proxy": "http://proxy.example:1"},
        {"proxy": "2001:db8::1:8080"},
        {"proxy": "proxy example:1"},
        {"proxy": ":3128"},
        {"proxy": "p.example:1", "user": "a:b"},
        {"proxy": "p.example:1", "user": "a", "password": "b\r\nX: y"},
        {"up_bytes_s": 100},
        {"up_bytes_s": "fast"},
    ],
)
def test_what_cannot_be_used_is_not_set(change: dict[str, object]) -> None:
    with pytest.raises(StateError) as caught:
        settings.changed(Settings(), change)
    assert "X: y" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", '{"v": 2}', '{"proxy": {"host": "a"}}', '{"x": 1}'])
def test_a_file_that_cannot_be_used_says_so_and_what_to_do(tmp_path: Path, text: str) -> None:
    (tmp_path / "network.json").write_text(text)
    with pytest.raises(StateError, match="Remove it"):
        settings.load(tmp_path)


def test_an_error_in_the_file_does_not_quote_the_password(tmp_path: Path) -> None:
    proxy = {"host": "a", "port": 1, "user": "u", "password": "s3cret\n"}
    (tmp_path / "network.json").write_text(json.dumps({"proxy": proxy}))
    with pytest.raises(StateError) as caught:
        settings.load(tmp_path)
    assert "s3cret" not in str(caught.value)
