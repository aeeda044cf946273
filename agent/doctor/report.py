"""What the doctor found, as text, as JSON, and as the page that stays with the hospital. Pure.

The page holds everything twice, in English and in Canadian French (R-ASR-4), begins with the
language in use, and names the hosts
to allow, how IT can look from any workstation, and whom to call.
"""

import ipaddress
import shlex
from typing import Any

from agent import i18n
from agent.doctor import checks
from agent.doctor.checks import Check, Examination, Verdict
from agent.i18n import _
from agent.network.findings import day
from agent.panel.contacts import Contacts

WIDTH = 100


def as_json(found: Examination) -> dict[str, Any]:
    """In the language in use, as docs/cli.md says."""
    return {
        "ok": found.ok,
        "at": day(found.at),
        "serial": found.serial,
        "device": found.device or None,
        "proxy": found.proxy or None,
        "checks": [_check(check) for check in found.checks],
        "allow": list(found.servers),
        "openssl": [openssl(found, server) for server in found.servers],
    }


def _check(check: Check) -> dict[str, Any]:
    what, remedy = checks.tell(check)
    return {
        "check": check.what.value,
        "target": check.target or None,
        "verdict": check.verdict.value,
        "code": check.shown.code.value,
        "what": what,
        "remedy": remedy or None,
        "took_ms": None if check.took_s is None else round(check.took_s * 1000),
    }


def as_text(found: Examination) -> str:
    """In the language in use, for the terminal."""
    return "\n".join([*_summary(found), "", *_lines(found), "", *_workstation(found)])


def page(found: Examination, contacts: Contacts) -> str:
    """In both languages, the one in use first. The language in use stays what it was."""
    before = i18n.language()
    parts = []
    try:
        for language in sorted(i18n.LANGUAGES, key=lambda each: each != before):
            i18n.use(language)
            parts.append("\n".join(_half(found, contacts)))
    finally:
        i18n.use(before)
    return f"\n{'=' * WIDTH}\n".join(parts) + "\n"


def openssl(found: Examination, server: str) -> str:
    """A line for any workstation of this network: who answers there?"""
    host = server.rpartition(":")[0].strip("[]")
    words = ["openssl", "s_client", "-connect", server]
    if not _is_address(host):
        words += ["-servername", host]
    words += ["-alpn", "mqtt"]
    if found.proxy:
        words += ["-proxy", found.proxy]
    if found.proxy_user:
        words += ["-proxy_user", found.proxy_user, "-proxy_pass", "pass:PASSWORD"]
    look = "openssl x509 -noout -issuer -subject -dates"
    return f"{shlex.join(words)} </dev/null 2>/dev/null | {look}"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _half(found: Examination, contacts: Contacts) -> list[str]:
    return [
        _("Connection report of an injector"),
        _("This page stays with the hospital. Nothing of it is sent to the manufacturer."),
        "",
        *_summary(found),
        "",
        *_lines(found),
        "",
        *_workstation(found),
        _("Connectivity support: {reach}").format(reach=contacts.connectivity),
        _("Cybersecurity support: {reach}").format(reach=contacts.cybersecurity),
    ]


def _summary(found: Examination) -> list[str]:
    if not found.ok:
        verdict = _("Something keeps this injector from connecting: see WRONG below.")
    elif found.noted:
        verdict = _("This injector can connect. See the notes below.")
    else:
        verdict = _("Nothing was found that keeps this injector from connecting.")
    return [
        _("Injector {serial} ({device}), {at}").format(
            serial=found.serial, device=found.device or _("not enrolled"), at=day(found.at)
        ),
        _("Proxy: {proxy}").format(proxy=found.proxy or _("none")),
        verdict,
    ]


def _lines(found: Examination) -> list[str]:
    lines = []
    for check in found.checks:
        what, remedy = checks.tell(check)
        name = f"{checks.title(check.what)} {check.target}".strip()
        line = _("{name}: {what}").format(name=name, what=what)
        lines.append(f"{checks.verdict(check.verdict):<6} {line}")
        if remedy and check.verdict is not Verdict.GOOD:
            lines.append(f"{'':<6} → {remedy}")
    return lines


def _workstation(found: Examination) -> list[str]:
    return [
        _("Allow outbound TCP to: {servers}").format(servers=", ".join(found.servers)),
        _("From any workstation of this network; the issuer must be {authority}:").format(
            authority=found.authority
        ),
        *(f"  {openssl(found, server)}" for server in found.servers),
    ]
