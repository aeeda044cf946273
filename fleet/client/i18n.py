"""The command's own texts, in English or Canadian French (R-ASR-4).

The reader's language is the environment's, as POSIX programs read it. English is the source; the
only catalogue is Canadian French, which serves every French. What click says of wrong usage is in
the catalogue as well (fleet/client/clicks.py); the help of commands and options is English.
"""

import gettext
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

DOMAIN = "client"
LOCALE = Path(__file__).parent / "locale"


def tag() -> str:
    """The language that the environment asks for, as `fr-CA`; English when it names none."""
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        value = os.environ.get(name)
        if value:
            code = re.split(r"[.@]", value)[0].replace("_", "-")
            return "en" if code in ("C", "POSIX") else code
    return "en"


def language() -> str:
    """The nearest language there is."""
    return "fr_CA" if tag().lower().startswith("fr") else "en"


@cache
def _catalogue(language: str) -> gettext.NullTranslations:
    # Uncompiled in a checkout where `make` has not run; English is then better than nothing.
    return gettext.translation(DOMAIN, LOCALE, languages=[language], fallback=True)


def _(message: str) -> str:
    """The message in the reader's language."""
    return _catalogue(language()).gettext(message) if message else ""


def gettext_noop(message: str) -> str:
    """Marks a message that is translated where it is shown."""
    return message


@contextmanager
def speaking() -> Iterator[None]:
    """Within the block click speaks the same language: it asks gettext's default domain, which
    goes by LANGUAGE before all else."""
    kept, domain = os.environ.get("LANGUAGE"), gettext.textdomain()
    os.environ["LANGUAGE"] = language()
    gettext.bindtextdomain(DOMAIN, str(LOCALE))
    gettext.textdomain(DOMAIN)
    try:
        yield
    finally:
        gettext.textdomain(domain)
        if kept is None:
            del os.environ["LANGUAGE"]
        else:
            os.environ["LANGUAGE"] = kept
