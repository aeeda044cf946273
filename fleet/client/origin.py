"""The access origin: the browser client's files, and a small server for them.

The files are static and the same everywhere; `hashes.json` beside them says what they are, and is
published with each release. What differs from place to place is in `config.json`, which is made
here: the portal's address, and the device root that challenges must lead to. Whoever serves these
files could change what a specialist signs, so it must not be the portal (docs/browser.md).
"""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fleet.client.errors import ClientError, Exit
from fleet.client.i18n import _
from fleet.client.portal import check_url

WEB = Path(__file__).parent / "web"
HASHES = "hashes.json"
CONFIG = "config.json"
_NOT_SERVED = {HASHES, "js/package.json", "vendor/manifest.json"}  # for tools and tests
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}
_TEXT = "text/plain; charset=utf-8"  # licences
_PATIENCE_S = 10.0  # for a client to send its request
_MAX_PATH = 200  # characters


# --- the files ----------------------------------------------------------------------------------


def names(web: Path = WEB) -> list[str]:
    """The files that make the client, by their path from its root."""
    found = (path.relative_to(web).as_posix() for path in web.rglob("*") if path.is_file())
    return sorted(name for name in found if name not in _NOT_SERVED and name != CONFIG)


def hashes(web: Path = WEB) -> dict[str, str]:
    """SHA-256 of each file, in hexadecimal digits."""
    return {name: hashlib.sha256((web / name).read_bytes()).hexdigest() for name in names(web)}


def sri(digest: str) -> str:
    """The same as browsers write it (Subresource Integrity)."""
    return "sha256-" + base64.b64encode(bytes.fromhex(digest)).decode()


def published(web: Path = WEB) -> dict[str, str]:
    """What the release says that the files are."""
    listed: dict[str, str] = json.loads((web / HASHES).read_text("ascii"))
    return listed


def check(web: Path = WEB) -> None:
    """Raises ClientError that names the files that are not the published ones."""
    found, listed = hashes(web), published(web)
    other = sorted(name for name in {*found, *listed} if found.get(name) != listed.get(name))
    if other:
        raise ClientError(
            _(
                "These files are not those of the release: {names}. Install it again. Whoever "
                "changed them on purpose makes the list anew with: {command}"
            ).format(
                names=", ".join(other),
                command=f"patency access-origin hashes -o json > {web / HASHES}",
            )
        )


def config(portal: str, device_root: Path) -> bytes:
    """`config.json`. Raises ClientError for an address or a root that cannot be used."""
    try:
        roots = x509.load_pem_x509_certificates(device_root.read_bytes())
    except (OSError, ValueError) as error:
        raise ClientError(
            _(
                "The device root {path} cannot be read ({error}). Get the file from its keeper, "
                "not from the portal."
            ).format(path=device_root, error=getattr(error, "strerror", None) or error),
            Exit.USAGE,
        ) from error
    ders = [base64.b64encode(root.public_bytes(Encoding.DER)).decode() for root in roots]
    made = {"portal": check_url(portal), "device_roots": ders}
    return json.dumps(made, indent=1).encode() + b"\n"


def export(folder: Path, portal: str, device_root: Path) -> None:
    """Everything that a static host has to serve. Raises ClientError."""
    check()
    made = config(portal, device_root)
    for name in names():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((WEB / name).read_bytes())
    (folder / HASHES).write_bytes((WEB / HASHES).read_bytes())
    (folder / CONFIG).write_bytes(made)


# --- what goes with them ------------------------------------------------------------------------


def headers(portal: str) -> dict[str, str]:
    """What a host must send with every file. Nothing inline, nothing from elsewhere, and calls to
    the one portal alone."""
    parts = urlsplit(check_url(portal))
    origin = f"{parts.scheme}://{parts.netloc}"
    socket = origin.replace("http", "ws", 1)
    policy = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self'",
        "connect-src": f"'self' {origin} {socket}",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
    }
    return {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "publickey-credentials-get=(self), camera=(), microphone=()",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Cache-Control": "no-cache",
    }


class Site:
    """The files in memory, as they were when they were checked."""

    def __init__(self, portal: str, device_root: Path) -> None:
        check()
        self.headers: Mapping[str, str] = headers(portal)
        self._files = {f"/{name}": (WEB / name).read_bytes() for name in [*names(), HASHES]}
        self._files[f"/{CONFIG}"] = config(portal, device_root)

    def find(self, path: str) -> tuple[str, bytes] | None:
        """(type, contents) of what this path names, or None."""
        name = urlsplit(path).path
        for candidate in _candidates(name):
            if candidate in self._files:
                return _TYPES.get(Path(candidate).suffix, _TEXT), self._files[candidate]
        return None


def _candidates(name: str) -> Iterator[str]:
    yield name
    yield f"{name.rstrip('/')}/index.html"


def server(listen: tuple[str, int], site: Site) -> ThreadingHTTPServer:
    """Bound and listening; serve_forever() is the caller's. Raises ClientError."""

    class Handler(BaseHTTPRequestHandler):
        timeout = _PATIENCE_S
        server_version, sys_version = "patency", ""

        def do_GET(self) -> None:
            found = site.find(self.path) if len(self.path) <= _MAX_PATH else None
            if found is None:
                self._answer(HTTPStatus.NOT_FOUND, _TEXT, b"There is nothing here.\n")
            else:
                self._answer(HTTPStatus.OK, *found)

        do_HEAD = do_GET  # noqa: N815 - the name that the library looks for

        def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            for name, value in site.headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Static files: nothing worth a line."""

    try:
        made = ThreadingHTTPServer(listen, Handler)
    except OSError as error:
        raise ClientError(
            _("{address} cannot be listened on: {error}. Choose another with --listen.").format(
                address=f"{listen[0]}:{listen[1]}", error=error.strerror or error
            )
        ) from error
    made.daemon_threads = True
    return made
