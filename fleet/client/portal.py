"""The portal's API, as this command uses it. Synchronous; asyncio callers use a thread."""

import base64
import ipaddress
import re
import ssl
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec

from agent.wire.catalogue import SessionState
from agent.wire.messages import Hex32
from agent.wire.topics import is_device_id
from fleet.client import advice, i18n
from fleet.client.errors import ClientError, Exit, NotAllowed, NotFound, Unreachable
from fleet.client.i18n import _
from fleet.client.profile import Profile

JSON = dict[str, Any]
_TIMEOUT = httpx.Timeout(20, connect=10)
_MAX_PAGES = 100
_SESSION = re.compile(r"[0-9a-f]{32}")
_BY_STATUS = {401: Exit.NOT_ALLOWED, 403: Exit.NOT_ALLOWED, 404: Exit.NOT_FOUND}


def language() -> str:
    """For Accept-Language."""
    code = i18n.tag()
    return code if code == "en" else f"{code}, {code.split('-')[0]};q=0.8"


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_url(url: str) -> str:
    """The portal's address without a trailing slash. Raises ClientError for what is none, and
    for plain HTTP to another machine: the token would travel in the clear."""
    try:
        parts = urlsplit(url)
        fits = url.isascii() and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # brackets that do not match, a port above 65535
        fits = False
    if not fits or parts.scheme not in ("http", "https") or parts.query:
        raise ClientError(
            _("{url} is no address of a portal. Write it as https://portal.example").format(
                url=repr(url)
            ),
            Exit.USAGE,
        )
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise ClientError(
            _(
                "{url} is not encrypted, so the token would be readable on the way. Use https."
            ).format(url=url),
            Exit.USAGE,
        )
    return url.rstrip("/")


def check_token(token: str) -> str:
    """The token, if it can be one: it travels in a header. Raises NotAllowed."""
    if not token or not all("!" <= c <= "~" for c in token):
        raise NotAllowed(
            _(
                "This is no token: it has characters that no token has. Copy it again from the "
                "portal's page “Account and tokens”, then: {command}"
            ).format(command=advice.command("login"))
        )
    return token


def tls_context(url: str, profile: Profile) -> ssl.SSLContext | None:
    """How the portal is verified; None for plain HTTP. Raises ClientError."""
    if not url.startswith("https:"):
        return None
    path = profile.ca_path
    try:
        return ssl.create_default_context(cafile=str(path) if path else None)
    except (OSError, ssl.SSLError) as error:
        raise ClientError(
            _(
                "The portal's CA {path} cannot be read ({error}). Name it with: {command} FILE"
            ).format(path=path, error=error, command=advice.command("login", url, "--ca"))
        ) from error


class Declined(ClientError):
    """The portal understood, and will not do it; its words say why."""


class _Shown(msgspec.Struct):
    """What is read of a session; anything else may be there as well."""

    session: Hex32
    device: str
    serial: str
    specialist: str
    state: SessionState
    state_reason: str | None
    challenge: str | None
    challenge_signature: str | None
    certificates: list[str]
    request: str


class Portal:
    """A signed-in connection to the portal. Use as a context manager."""

    def __init__(self, profile: Profile) -> None:
        self.url = check_url(profile.url)
        self.headers = {
            "Authorization": f"Bearer {check_token(profile.token)}",
            "Accept-Language": language(),
            "User-Agent": "patency/1",
        }
        self.is_loopback = is_loopback(urlsplit(self.url).hostname or "")
        self.ssl = tls_context(self.url, profile)
        self._http = httpx.Client(
            base_url=f"{self.url}/api/v1/",
            headers=self.headers,
            timeout=_TIMEOUT,
            verify=self.ssl or True,
            trust_env=not self.is_loopback,  # no proxy to this machine itself
        )

    def __enter__(self) -> "Portal":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def stream_url(self, session: str) -> str:
        return "ws" + self.url.removeprefix("http") + f"/ws/stream/{session}"

    # --- calls ------------------------------------------------------------------------------------

    def me(self) -> JSON:
        return self._object("GET", "me/")

    def devices(self, filters: Mapping[str, str | None]) -> list[JSON]:
        return list(self._pages("devices/", filters))

    def device(self, target: str) -> JSON:
        """The one device with this serial number or device id. Raises NotFound, ClientError."""
        found = [it for it in self._pages("devices/", {"q": target}) if it["serial"] == target]
        if not found:
            return self._device_by_id(target)
        if len(found) > 1:
            lines = ", ".join(f"{it['device']} ({it['product_line']})" for it in found)
            raise ClientError(
                _(
                    "Several injectors have the serial number {serial}: {lines}. "
                    "Use the device id instead."
                ).format(serial=target, lines=lines),
                Exit.USAGE,
            )
        return found[0]

    def details(self, target: str) -> JSON:
        """A device with its services. Raises NotFound, ClientError."""
        if is_device_id(target) and not any(self._pages("devices/", {"q": target})):
            return self._device_by_id(target)
        return self._device_by_id(str(self.device(target)["device"]))

    def _device_by_id(self, target: str) -> JSON:
        unknown = NotFound(
            _("There is no injector {name}, or not for you. Those you may see: {command}").format(
                name=repr(target), command=advice.command("devices")
            )
        )
        if not is_device_id(target):
            raise unknown
        try:
            return self._object("GET", f"devices/{target}/")
        except ClientError as error:
            raise unknown if error.exit is Exit.NOT_FOUND else error from None

    def request_access(self, body: JSON) -> JSON:
        """Raises Declined when the portal itself refuses, and what the other calls raise."""
        return self._session("POST", "access/sessions/", json=body)

    def session(self, session: str) -> JSON:
        return self._session("GET", _path(session))

    def sessions(self) -> Iterator[JSON]:
        """Newest first, fetched as they are asked for."""
        return map(self._checked, self._pages("access/sessions/", {}))

    def answer(self, session: str, client_key: bytes, signature: bytes) -> JSON:
        body = {
            "client_key": base64.b64encode(client_key).decode(),
            "proof": {"kind": "ssh", "signature": base64.b64encode(signature).decode()},
        }
        return self._session("POST", _path(session, "answer/"), json=body)

    def give_ticket(self, session: str, ticket: str) -> JSON:
        return self._session("POST", _path(session, "ticket/"), json={"ticket": ticket})

    def end(self, session: str) -> JSON:
        return self._session("POST", _path(session, "end/"))

    def _session(self, method: str, path: str, **options: Any) -> JSON:
        return self._checked(self._object(method, path, **options))

    def _checked(self, shown: JSON) -> JSON:
        """A session that has every field this command reads, and a state that it knows."""
        try:
            msgspec.convert(shown, _Shown)
        except msgspec.ValidationError as error:
            raise Unreachable(
                _(
                    "{url} shows a session that this command cannot read ({error}). "
                    "Check the address; a newer patency may be needed."
                ).format(url=self.url, error=error)
            ) from None
        return shown

    def audit(self, session: str) -> JSON:
        return self._object("GET", _path(session, "audit/"))

    # --- HTTP -------------------------------------------------------------------------------------

    def _pages(self, path: str, filters: Mapping[str, str | None]) -> Iterator[JSON]:
        asked = {name: value for name, value in filters.items() if value is not None}
        for page in range(1, _MAX_PAGES + 1):
            answer = self._call("GET", path, params={**asked, "page": str(page)})
            results = answer.get("results") if isinstance(answer, dict) else answer
            if not isinstance(results, list):
                raise self._strange(path)
            yield from results
            if not isinstance(answer, dict) or not answer.get("next"):
                return

    def _object(self, method: str, path: str, **options: Any) -> JSON:
        answer = self._call(method, path, **options)
        if not isinstance(answer, dict):
            raise self._strange(path)
        return answer

    def _call(self, method: str, path: str, **options: Any) -> Any:
        try:
            response = self._http.request(method, path, **options)
        except httpx.TimeoutException:
            raise Unreachable(
                _("{url} did not answer in time. Check the network, then try again.").format(
                    url=self.url
                )
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unreachable(
                _(
                    "{url} cannot be reached ({error}). Check the address and the network; "
                    "sign in elsewhere with: {command}"
                ).format(url=self.url, error=error, command=advice.command("login"))
            ) from error
        if response.is_success:
            try:
                return response.json()
            except (ValueError, RecursionError):
                raise self._strange(path) from None
        raise self._error(response)

    def _strange(self, path: str) -> Unreachable:
        return Unreachable(
            _("{url} does not answer like a portal ({path}). Check the address.").format(
                url=self.url, path=path
            )
        )

    def _error(self, response: httpx.Response) -> ClientError:
        """The portal's own words, which carry the remedy."""
        status = response.status_code
        try:
            body = response.json()
            detail = str(body["detail"])
            fields = body.get("fields")
        except (ValueError, TypeError, KeyError, RecursionError):
            detail, fields = _("The portal answered {status}.").format(status=status), None
            if status >= 500:
                again = _("Try again; if it stays, call device support.")
                return Unreachable(f"{detail} {again}")
        if isinstance(fields, dict):
            detail += "".join(f"\n  {name}: {_flat(what)}" for name, what in fields.items())
        elif status in (400, 409):
            return Declined(detail)
        if status == 401:
            again = _("Sign in again with: {command}").format(command=advice.command("login"))
            return NotAllowed(f"{detail} {again}")
        return ClientError(detail, _BY_STATUS.get(status, Exit.FAILED))


def _path(session: str, what: str = "") -> str:
    """Where a session is. Raises ClientError for what is no id: it must not lead elsewhere."""
    if not _SESSION.fullmatch(session):
        raise ClientError(
            _("{session} is no session: its id is 32 hexadecimal digits.").format(
                session=repr(session)
            ),
            Exit.USAGE,
        )
    return f"access/sessions/{session}/{what}"


def _flat(what: Any) -> str:
    return " ".join(map(str, what)) if isinstance(what, list) else str(what)
