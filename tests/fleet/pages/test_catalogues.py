"""Translations are complete, and what is missing is found (R-ASR-4)."""

from pathlib import Path

import pytest
from django.core.management import call_command
from django.utils import translation

from fleet.pages import catalogues
from fleet.pages.catalogues import DOMAINS, Domain

PYTHON = """
from django.utils.translation import gettext as _, ngettext, pgettext
_("Plain text")
_("Joined " "text with %(name)s")
ngettext("%(n)s thing", "%(n)s things", 2)
pgettext("unit", "h")
"""
TEMPLATE = """{% load i18n %}<p title="{% translate 'In a template' %}">it's
{% blocktranslate with a=b trimmed %}
  Two {{ a }}
  lines
{% endblocktranslate %}
{% blocktranslate count total=n %}{{ total }} row{% plural %}
{{ total }} rows{% endblocktranslate %}</p>
"""


@pytest.fixture
def domain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Domain:
    monkeypatch.setattr(catalogues, "ROOT", tmp_path)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "x.py").write_text(PYTHON)
    (tmp_path / "code" / "x.html").write_text(TEMPLATE)
    return Domain("test", ("code",), "code/locale")


def test_every_kind_of_message_is_found(domain: Domain) -> None:
    found = {
        (m.id if isinstance(m.id, str) else m.id[0], m.context) for m in catalogues.template(domain)
    }
    assert found == {
        ("", None),
        ("Plain text", None),
        ("Joined text with %(name)s", None),
        ("%(n)s thing", None),
        ("h", "unit"),
        ("In a template", None),
        ("Two %(a)s lines", None),
        ("%(total)s row", None),
    }


def _translate(domain: Domain, id: str, text: str) -> None:
    content = domain.path.read_text()
    assert f'msgid "{id}"\nmsgstr ""' in content
    domain.path.write_text(
        content.replace(f'msgid "{id}"\nmsgstr ""', f'msgid "{id}"\nmsgstr "{text}"')
    )


def test_a_refresh_keeps_translations_and_drops_what_is_gone(domain: Domain) -> None:
    catalogues.refresh(domain)
    assert any("untranslated: 'Plain text'" in problem for problem in catalogues.problems(domain))
    _translate(domain, "Plain text", "Texte simple")
    before = domain.path.read_text()
    catalogues.refresh(domain)
    assert domain.path.read_text() == before
    assert not any("Plain text" in problem for problem in catalogues.problems(domain))

    source = catalogues.ROOT / "code" / "x.py"
    source.write_text(PYTHON.replace("Plain text", "Other text"))
    found = catalogues.problems(domain)
    assert any("missing: 'Other text'" in problem for problem in found)
    assert any("obsolete: 'Plain text'" in problem for problem in found)
    catalogues.refresh(domain)
    assert "Texte simple" not in domain.path.read_text()


def test_a_lost_placeholder_is_found(domain: Domain) -> None:
    catalogues.refresh(domain)
    _translate(domain, "Joined text with %(name)s", "Texte joint")
    assert any("placeholder is lost" in problem for problem in catalogues.problems(domain))
    content = domain.path.read_text().replace("Texte joint", "Texte %(nom)s")
    domain.path.write_text(content)
    assert any("does not have" in problem for problem in catalogues.problems(domain))


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda domain: domain.name)
def test_canadian_french_is_complete(domain: Domain) -> None:
    assert catalogues.problems(domain) == []
    call_command("messages", "--check", verbosity=0)


def test_the_portal_speaks_french_where_the_catalogues_are_compiled() -> None:
    if not catalogues.DOMAINS[0].path.with_suffix(".mo").exists():
        pytest.fail("run `make translations` first: make test does")
    with translation.override("fr-ca"):
        assert translation.gettext("Devices") == "Appareils"
