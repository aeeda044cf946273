"""Text for people at the injector, in English or Canadian French (R-ASR-4).

Several agents of one process may speak different languages, so the language is a context variable:
an agent sets it once at the top of its task and every task under it inherits it.
"""

import gettext
import json
import os
from contextvars import ContextVar
from functools import cache
from pathlib import Path

LANGUAGES = ("en", "fr_CA")
DOMAIN = "agent"

_language: ContextVar[str] = ContextVar("language", default="en")


def normalise(tag: str | None) -> str:
    """The nearest language there is for `fr-CA`, `fr_CA.UTF-8`, `en`…; English when none is."""
    return "fr_CA" if (tag or "").lower().startswith("fr") else "en"


def use(tag: str | None) -> None:
    """Speak this language from here on, in this context and those made from it."""
    _language.set(normalise(tag))


def chosen(state: Path, wanted: str | None = None) -> str:
    """The language `wanted`, else the one set for the injector of a state directory, else that of
    the environment; English where none of them says."""
    return normalise(wanted or _set(state) or _environment())


def _set(state: Path) -> str:
    try:
        return str(json.loads((state / "driver.json").read_bytes()).get("language") or "")
    except (OSError, ValueError, AttributeError):
        return ""


def _environment() -> str:
    """The tag that POSIX has messages go by."""
    tags = (os.environ.get(name) for name in ("LC_ALL", "LC_MESSAGES", "LANG"))
    return next((tag for tag in tags if tag), "")


def language() -> str:
    return _language.get()


@cache
def _catalogue(language: str) -> gettext.NullTranslations:
    # English is the source: its catalogue may be absent. So may the compiled French one, in a
    # checkout where `make` has not run; English is then better than nothing.
    return gettext.translation(
        DOMAIN, Path(__file__).parent / "locale", languages=[language], fallback=True
    )


def _(message: str) -> str:
    """The message in the language of this context."""
    return _catalogue(_language.get()).gettext(message) if message else ""


def ngettext(singular: str, plural: str, count: int) -> str:
    return _catalogue(_language.get()).ngettext(singular, plural, count)
