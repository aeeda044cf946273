"""Translation catalogues: found in the source, merged without losing a translation, checked.

Three domains. `django` is the portal's (Python and templates, fleet/locale), `client` the command
line's, which imports no Django (fleet/client/locale), `agent` what a person at the injector reads
(agent/locale). English is the source, so only Canadian French has a catalogue.
Locations carry no line numbers, so that a catalogue changes only when its text does.
"""

import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract
from babel.messages.pofile import read_po, write_po
from django.utils.translation.template import templatize

ROOT = Path(__file__).resolve().parents[2]
LOCALE = "fr_CA"
_WIDTH = 100
_KEYWORDS = {
    "_": None,
    "gettext": None,
    "gettext_lazy": None,
    "gettext_noop": None,
    "ngettext": (1, 2),
    "ngettext_lazy": (1, 2),
    "pgettext": ((1, "c"), 2),
    "pgettext_lazy": ((1, "c"), 2),
    "npgettext": ((1, "c"), 2, 3),
}
_STRING = r"u?(?:'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")"
# What templatize makes of a template's tags; the rest of its output is not Python.
_CALL = re.compile(rf"\bn?p?n?gettext\(\s*{_STRING}(?:\s*,\s*(?:{_STRING}|count))*\s*\)")
_PLACEHOLDER = re.compile(r"%\(\w+\)[sd]|%[sd]|\{\w*(?:![rsa])?\}")


@dataclass(frozen=True, slots=True)
class Domain:
    name: str
    sources: tuple[str, ...]  # folders under ROOT
    locale: str
    without: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        return ROOT / self.locale / LOCALE / "LC_MESSAGES" / f"{self.name}.po"


DOMAINS = (
    Domain("django", ("fleet", "templates"), "fleet/locale", without=("fleet/client",)),
    Domain("client", ("fleet/client",), "fleet/client/locale"),
    Domain("agent", ("agent",), "agent/locale"),
)


def template(domain: Domain) -> Catalog:
    """Every message of the domain, as the source has it now."""
    found = Catalog(domain=domain.name, charset="utf-8")
    for path in _files(domain):
        name = path.relative_to(ROOT).as_posix()
        for _line, message, comments, context in _messages(path):
            found.add(message, locations=[(name, 0)], auto_comments=comments, context=context)
    return found


def _files(domain: Domain) -> Iterator[Path]:
    for folder in domain.sources:
        for path in sorted((ROOT / folder).rglob("*")):
            name = path.relative_to(ROOT).as_posix()
            skipped = any(name.startswith(f"{folder}/") for folder in domain.without)
            if path.suffix in (".py", ".html") and not skipped:
                yield path


def _messages(path: Path) -> Iterable[tuple[int, str | tuple[str, ...], list[str], str | None]]:
    source = path.read_text("utf-8")
    if path.suffix == ".html":
        lines = templatize(source, origin=str(path)).splitlines()
        source = "\n".join("; ".join(m[0] for m in _CALL.finditer(line)) for line in lines)
    return extract("python", io.BytesIO(source.encode()), _KEYWORDS, comment_tags=("Translators:",))


def load(domain: Domain) -> Catalog:
    """The catalogue as it is on disk; an empty one where there is none."""
    if not domain.path.exists():
        return Catalog(locale=LOCALE, domain=domain.name, charset="utf-8")
    with domain.path.open("rb") as file:
        return read_po(file, locale=LOCALE, domain=domain.name)


def refresh(domain: Domain) -> Catalog:
    """Bring the catalogue up to date with the source; what the source lost is dropped."""
    fresh, kept = template(domain), load(domain)
    catalogue = Catalog(
        locale=LOCALE, domain=domain.name, charset="utf-8", project="Patency", fuzzy=False,
        header_comment="# Canadian French. Kept up to date by `manage.py messages`.",
    )  # fmt: skip
    for message in fresh:
        if not message.id:
            continue
        old = kept.get(message.id, message.context)
        catalogue.add(
            message.id,
            old.string if old is not None else None,
            locations=message.locations,
            auto_comments=message.auto_comments,
            flags=message.flags - {"fuzzy"},
            context=message.context,
        )
    domain.path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    write_po(
        buffer, catalogue, width=_WIDTH, sort_output=True, ignore_obsolete=True,
        include_lineno=False, omit_header=False,
    )  # fmt: skip
    # Dates would change the file without anything having changed.
    text = re.sub(r'"(POT-Creation|PO-Revision)-Date:[^\n]*\n', "", buffer.getvalue().decode())
    domain.path.write_text(text, "utf-8")
    return catalogue


def problems(domain: Domain) -> list[str]:
    """What is missing, untranslated, doubtful or left over; one sentence each."""
    fresh, kept = template(domain), load(domain)
    found = []
    for message in fresh:
        if not message.id:
            continue
        text = message.id if isinstance(message.id, str) else message.id[0]
        old = kept.get(message.id, message.context)
        if old is None:
            found.append(f"missing: {text!r}; run `manage.py messages` and translate it")
        else:
            found.extend(f"{what}: {text!r}" for what in _doubts(old))
    known = {(_first(m), m.context) for m in fresh}
    found.extend(
        f"obsolete: {_first(message)!r}; run `manage.py messages`"
        for message in [*kept, *kept.obsolete.values()]
        if message.id and (_first(message), message.context) not in known
    )
    return [f"{domain.name}: {problem}" for problem in found]


def _first(message: Message) -> str:
    return message.id if isinstance(message.id, str) else message.id[0]


def _doubts(message: Message) -> Iterator[str]:
    ids = [message.id] if isinstance(message.id, str) else list(message.id)
    strings = [message.string] if isinstance(message.string, str) else list(message.string or [""])
    if not all(strings):
        yield "untranslated"
        return
    if message.fuzzy:
        yield "fuzzy"
    wanted = set().union(*(_PLACEHOLDER.findall(text) for text in ids))
    for text in strings:
        if not set(_PLACEHOLDER.findall(text)) <= wanted:
            yield "a placeholder that the source does not have"
        elif len(ids) == 1 and set(_PLACEHOLDER.findall(text)) != wanted:
            yield "a placeholder is lost"
