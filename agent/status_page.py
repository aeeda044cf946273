"""The status page of a simulated injector: one page over HTTP/1.1, read only, on loopback.

It takes GET and HEAD of `/` and `/status.json` from a browser that was sent to this machine by
name, and nothing else: no form, no script, no cookie.
"""

import asyncio
import html
import json
from pathlib import Path
from typing import Any

from agent import control
from agent.errors import AgentError

HEAD_S = 5.0
MAX_HEADERS = 64
REFRESH_S = 5
# Another name would be a page elsewhere that had its name point here (DNS rebinding).
_HOSTS = frozenset({"127.0.0.1", "localhost"})
_COMMON = (
    "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n"
    "Content-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\nConnection: close\r\n"
)
_REASONS = {
    200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed",
    421: "Misdirected Request", 503: "Service Unavailable",
}  # fmt: skip


async def answer(state: Path, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request. Raises ValueError, TimeoutError for what is none."""
    async with asyncio.timeout(HEAD_S):
        start = (await reader.readline()).decode("latin-1").split()
        host = ""
        for _each in range(MAX_HEADERS):
            line = (await reader.readline()).decode("latin-1").strip()
            if not line:
                break
            name, _colon, value = line.partition(":")
            if name.lower() == "host":
                host = value.strip()
    status, kind, body = await _page(state, start, host)
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {kind}; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\n{_COMMON}"
    )
    if status == 200 and kind == "text/html":
        head += f"Refresh: {REFRESH_S}\r\n"
    writer.write(head.encode() + b"\r\n" + (b"" if start[:1] == ["HEAD"] else body))
    async with asyncio.timeout(HEAD_S):
        await writer.drain()


async def _page(state: Path, start: list[str], host: str) -> tuple[int, str, bytes]:
    if len(start) != 3:
        return _plain(400, "This is no HTTP request.")
    method, path, _version = start
    if host.rpartition(":")[0] not in _HOSTS and host not in _HOSTS:
        return _plain(421, "Open this page as http://127.0.0.1:PORT/.")
    if method not in ("GET", "HEAD"):
        return _plain(405, "This page can only be read.")
    if path not in ("/", "/status.json"):
        return _plain(404, "There is one page here: /")
    try:
        shown = await asyncio.to_thread(control.call, state, "console-view", timeout_s=10)
    except AgentError as error:
        return _plain(503, str(error))
    if path == "/status.json":
        return 200, "application/json", json.dumps(shown).encode()
    return 200, "text/html", _html(shown).encode()


def _plain(status: int, text: str) -> tuple[int, str, bytes]:
    return status, "text/plain", text.encode() + b"\n"


def _html(shown: dict[str, Any]) -> str:
    title = f"{shown['product_line']} {shown['serial']}"
    wrong = [f"{e['code']} {e['name']} {e['syringe'] or ''}" for e in shown["conditions"]]
    facts = {
        "State": shown["state"],
        "Connected": "yes" if shown["online"] else "no",
        "Software": shown["software_version"],
        "Wrong now": ", ".join(wrong) or "nothing",
    }
    readings = {name: f"{value:g}" for name, value in sorted(shown["values"].items())}
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{_text(title)}</title>'
        '<meta name="viewport" content="width=device-width">'
        f"<h1>Simulated injector {_text(title)}</h1>{_table(facts)}"
        f"<h2>Readings</h2>{_table(readings)}</html>\n"
    )


def _table(rows: dict[str, str]) -> str:
    cells = (
        f'<tr><th scope="row" align="left">{_text(name)}</th><td>{_text(value)}</td></tr>'
        for name, value in rows.items()
    )
    return f"<table>{''.join(cells)}</table>"


def _text(value: str) -> str:
    return html.escape(str(value))
