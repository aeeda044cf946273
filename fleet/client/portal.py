"""The portal's API, as this command uses it. Synchronous; asyncio callers use a thread."""

import base64
import ipaddress
import os
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
from fleet.client.errors import ClientError, Exit, NotAllowed, NotFound, Unreachable
from fleet.client.profile import Profile

JSON = dict[str, Any]
_TIMEOUT = httpx.Timeout(20, connect=10)
_MAX_PAGES = 100
_BY_STATUS = {401: Exit.NOT_ALLOWED, 403: Exit.NOT_ALLOWED, 404: Exit.NOT_FOUND}


def language() -> str:
    """For Accept-Language, from the environment as POSIX programs read it."""
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        value = os.environ.get(name)
        if value:
            code = re.split(r"[.@]", value)[0].replace("_", "-")
            return "en" if code in ("C", "POSIX") else f"{code}, {code.split('-')[0]};q=0.8"
    return "en"


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_url(url: str) -> str:
    """The portal's address without a trailing slash. Raises ClientError for what is none, and
    for plain HTTP to another machine: the token would travel in the clear."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
        raise ClientError(
            f"{url!r} is no address of a portal. Write it as https://portal.example", Exit.USAGE
        )
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ClientError(
            f"{url} is not encrypted, so the token would be readable on the way. Use https.",
            Exit.USAGE,
        )
    return url.rstrip("/")


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
            "Authorization": f"Bearer {profile.token}",
            "Accept-Language": language(),
            "User-Agent": "patency/1",
        }
        self.is_loopback = is_loopback(urlsplit(self.url).hostname or "")
        self.ssl = self._context(profile)
        self._http = httpx.Client(
            base_url=f"{self.url}/api/v1/",
            headers=self.headers,
            timeout=_TIMEOUT,
            verify=self.ssl or True,
            trust_env=not self.is_loopback,  # no proxy to this machine itself
        )

    def _context(self, profile: Profile) -> ssl.SSLContext | None:
        if not self.url.startswith("https:"):
            return None
        try:
            path = profile.ca_path
            return ssl.create_default_context(cafile=str(path) if path else None)
        except (OSError, ssl.SSLError) as error:
            raise ClientError(
                f"The portal's CA file cannot be read ({error}). Name another: patency login --ca"
            ) from error

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
                f"Several injectors have the serial number {target}: {lines}. "
                "Use the device id instead.",
                Exit.USAGE,
            )
        return found[0]

    def _device_by_id(self, target: str) -> JSON:
        unknown = NotFound(f"There is no injector {target!r}, or not for you. See: patency devices")
        if not is_device_id(target):
            raise unknown
        try:
            return self._object("GET", f"devices/{target}/")
        except ClientError as error:
            raise unknown if error.exit is Exit.NOT_FOUND else error from None

    def request_access(self, body: JSON) -> JSON:
        return self._session("POST", "access/sessions/", json=body)

    def session(self, session: str) -> JSON:
        return self._session("GET", f"access/sessions/{session}/")

    def sessions(self) -> Iterator[JSON]:
        """Newest first, fetched as they are asked for."""
        return map(self._checked, self._pages("access/sessions/", {}))

    def answer(self, session: str, client_key: bytes, signature: bytes) -> JSON:
        body = {
            "client_key": base64.b64encode(client_key).decode(),
            "signature": base64.b64encode(signature).decode(),
        }
        return self._session("POST", f"access/sessions/{session}/answer/", json=body)

    def end(self, session: str) -> JSON:
        return self._session("POST", f"access/sessions/{session}/end/")

    def _session(self, method: str, path: str, **options: Any) -> JSON:
        return self._checked(self._object(method, path, **options))

    def _checked(self, shown: JSON) -> JSON:
        """A session that has every field this command reads, and a state that it knows."""
        try:
            msgspec.convert(shown, _Shown)
        except msgspec.ValidationError as error:
            raise Unreachable(
                f"{self.url} shows a session that this command cannot read ({error}). "
                "Check the address; a newer patency may be needed."
            ) from None
        return shown

    def audit(self, session: str) -> JSON:
        return self._object("GET", f"access/sessions/{session}/audit/")

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
                f"{self.url} did not answer in time. Check the network, then try again."
            ) from None
        except httpx.HTTPError as error:
            raise Unreachable(
                f"{self.url} cannot be reached ({error}). Check the address and the network; "
                "sign in elsewhere with: patency login"
            ) from error
        if response.is_success:
            try:
                return response.json()
            except ValueError:
                raise self._strange(path) from None
        raise self._error(response)

    def _strange(self, path: str) -> Unreachable:
        return Unreachable(f"{self.url} does not answer like a portal ({path}). Check the address.")

    def _error(self, response: httpx.Response) -> ClientError:
        """The portal's own words, which carry the remedy."""
        try:
            body = response.json()
            detail = str(body["detail"])
            fields = body.get("fields")
        except (ValueError, TypeError, KeyError):
            detail, fields = f"The portal answered {response.status_code}.", None
            if response.status_code >= 500:
                return Unreachable(f"{detail} Try again; if it stays, call device support.")
        if isinstance(fields, dict):
            detail += "".join(f"\n  {name}: {_flat(what)}" for name, what in fields.items())
        if response.status_code == 401:
            return NotAllowed(f"{detail} Sign in again with: patency login")
        return ClientError(detail, _BY_STATUS.get(response.status_code, Exit.FAILED))


def _flat(what: Any) -> str:
    return " ".join(map(str, what)) if isinstance(what, list) else str(what)
