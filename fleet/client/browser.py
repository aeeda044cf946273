"""Signing in by the browser (RFC 8628): the portal gives a secret to keep and a short code to show;
the person approves the code there, with their second factor, and the secret becomes a token."""

import platform
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec

from fleet.client import advice, output
from fleet.client.errors import ClientError, Exit, NotAllowed, Unreachable
from fleet.client.i18n import _
from fleet.client.portal import check_url, is_loopback, language, tls_context
from fleet.client.profile import Profile

SCOPES = ("read", "access", "jobs", "admin")
SLOWER_S = 5  # RFC 8628, 3.5
_CLIENT = "patency"
_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
_TIMEOUT = httpx.Timeout(20, connect=10)
_LONGEST_S = 3600.0


class Asked(msgspec.Struct, frozen=True):
    """The portal's answer to the beginning; anything else may be there as well."""

    device_code: str
    user_code: str
    verification_uri: str
    expires_in: float
    interval: float = 5


def sign_in(profile: Profile, scopes: tuple[str, ...] = ()) -> str:
    """The token, once somebody has approved. Raises ClientError with the remedy."""
    url = check_url(profile.url)
    local = is_loopback(urlsplit(url).hostname or "")
    with httpx.Client(
        base_url=f"{url}/api/v1/sign-in/",
        headers={"Accept-Language": language(), "User-Agent": "patency/1"},
        timeout=_TIMEOUT,
        verify=tls_context(url, profile) or True,
        trust_env=not local,  # no proxy to this machine itself
    ) as http:
        asked = _begin(http, url, scopes)
        output.note(
            _("Open {where} in the browser, sign in, and type this code: {code}").format(
                where=output.cell(_where(url, asked.verification_uri)),
                code=output.cell(asked.user_code),
            )
        )
        return wait(asked, lambda: _ask(http, url, asked))


def wait(
    asked: Asked,
    ask: Callable[[], tuple[int, Any]],
    *,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Ask until there is a token, not faster than the portal likes. A portal that is away for a
    moment is asked again. Raises ClientError when it was denied or the time is over."""
    interval = max(1.0, min(asked.interval, 60.0))
    until = now() + max(0.0, min(asked.expires_in, _LONGEST_S))
    while now() + interval < until:
        sleep(interval)
        try:
            status, body = ask()
        except Unreachable:
            interval = min(2 * interval, 60.0)
            continue
        if status == 200 and isinstance(body.get("access_token"), str):
            return str(body["access_token"])
        problem = body.get("error")
        if problem == "slow_down":
            interval += SLOWER_S
        elif problem == "access_denied":
            raise NotAllowed(_("It was denied in the browser. Nothing was stored."))
        elif problem == "expired_token":
            break
        elif problem != "authorization_pending":
            detail = output.cell(body.get("detail") or status)
            raise ClientError(
                _("The portal gives no token ({detail}). Try again with: {command}").format(
                    detail=detail, command=advice.command("login")
                )
            )
    raise ClientError(
        _("Nobody approved the code in time. Try again with: {command}").format(
            command=advice.command("login")
        ),
        Exit.EXPIRED,
    )


def _begin(http: httpx.Client, url: str, scopes: tuple[str, ...]) -> Asked:
    name = f"patency, {platform.node()}"[:80]
    if not name.isprintable():
        name = "patency"
    form = {"client_id": _CLIENT, "scope": " ".join(scopes), "name": name}
    status, body = _post(http, url, "device/", form)
    if status != 200:
        detail = output.cell(body.get("detail") or status)
        raise ClientError(
            _("The portal does not sign command lines in by the browser ({detail}).").format(
                detail=detail
            )
        )
    try:
        return msgspec.convert(body, Asked)
    except msgspec.ValidationError:
        raise _strange(url) from None


def _ask(http: httpx.Client, url: str, asked: Asked) -> tuple[int, dict[str, Any]]:
    form = {"client_id": _CLIENT, "grant_type": _GRANT, "device_code": asked.device_code}
    return _post(http, url, "token/", form)


def _post(
    http: httpx.Client, url: str, path: str, form: dict[str, str]
) -> tuple[int, dict[str, Any]]:
    """Raises Unreachable."""
    try:
        answer = http.post(path, data=form)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Unreachable(
            _("{url} cannot be reached ({error}). Check the address and the network.").format(
                url=url, error=error
            )
        ) from error
    if answer.status_code >= 500:
        raise Unreachable(_("The portal answered {status}.").format(status=answer.status_code))
    try:
        body = answer.json()
    except (ValueError, RecursionError):
        raise _strange(url) from None
    if not isinstance(body, dict):
        raise _strange(url)
    return answer.status_code, body


def _strange(url: str) -> Unreachable:
    return Unreachable(
        _("{url} does not answer like a portal ({path}). Check the address.").format(
            url=url, path="sign-in/"
        )
    )


def _where(url: str, said: str) -> str:
    """The portal's page, at the address that the person gave: what it says of itself may be a name
    that only its proxy knows, and must not lead elsewhere."""
    return f"{url}{urlsplit(said).path}" if urlsplit(said).path.startswith("/") else url
