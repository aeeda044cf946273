"""What a site sets about its network stays in one private file (R-CON-2, R-PRV-2)."""

import stat
from pathlib import Path

import pytest

from agent import i18n
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
def test_a_file_that_cannot_be_used_is_done_without_and_told(tmp_path: Path, text: str) -> None:
    """R-CON-8: no reason to stay away until a person comes."""
    (tmp_path / "network.json").write_text(text)
    assert settings.read(tmp_path) == (Settings(), True)
    assert (tmp_path / "network.json").read_text() == text
    assert "panel" in settings.lost()
    settings.save(tmp_path, settings.changed(Settings(), {"up_bytes_s": 9000}))
    assert settings.read(tmp_path) == (Settings(up_bytes_s=9000), False)


def test_what_must_not_be_set_is_said_in_our_words_in_both_languages() -> None:
    """No rule of a library is shown to the hospital's staff."""
    changes: list[tuple[dict[str, object], str, str]] = [
        ({"proxy": "p.example:1", "user": "a:b"}, "no colon", "sans deux-points"),
        ({"proxy": "p.example:0"}, "from 1 to 65535", "de 1 à 65535"),
        ({"proxy": "p example:1"}, "without spaces", "sans espaces"),
        ({"up_bytes_s": 100}, "from 4096", "de 4096"),
    ]
    for language, which in (("en", 1), ("fr", 2)):
        i18n.use(language)
        for case in changes:
            with pytest.raises(StateError, match=str(case[which])) as caught:
                settings.changed(Settings(), case[0])
            assert "$" not in str(caught.value)
    i18n.use("en")
