"""First contact: show the claim over HTTPS, take the identity (R-CON-2).

The server is believed only under the anchors of the provisioning bundle; trust stores and proxies
of the environment are not looked at. A proxy is what the site set at the panel, and nothing else.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from pathlib import Path

import httpx
import msgspec

from agent import identity, keystore
from agent.errors import EnrolmentRefused, NetworkError
from agent.i18n import _
from agent.identity import Identity, Provision
from agent.keystore import Key, Slot
from agent.network import findings, settings, words
from agent.network.findings import Code, Finding, classify
from agent.network.journey import AS_ANYBODY, Astray, Journey
from agent.network.route import Route
from agent.network.settings import Proxy

DEADLINE_S = 20.0
DIAGNOSE_S = 8.0
MAX_ANSWER = 64 * 1024
AGAIN_S = (1.0, 30.0)  # first and longest pause after a failure of the network
REFUSED_AGAIN_S = 60.0  # somebody may put the claim right at the vendor

log = logging.getLogger(__name__)


class _Refusal(msgspec.Struct, frozen=True):
    """An error of the portal. `detail` is for a person at the portal; here the code decides."""

    error: str = ""
    detail: str = ""


async def enrol(state: Path) -> Identity:
    """The identity in `state`, asked for if there is none yet.

    Raises StateError, NetworkError (worth another try) or EnrolmentRefused (worth a person).
    """
    provision = identity.load_provision(state)
    known = identity.load(state)
    if known is not None:
        return known
    return await _ask(state, provision)


async def come_back(state: Path) -> Identity:
    """For a device that is enrolled and whose certificate is over: the same claim with the same
    key gives a new one. While the certificate is good it is given again, so asking does no harm.

    Raises what `enrol` raises.
    """
    return await _ask(state, identity.load_provision(state))


async def judge(known: Identity) -> Code | None:
    """What the portal has against this certificate; None when it gives no answer. Nothing of the
    answer is kept: `come_back` takes what there is to take.

    Raises StateError."""
    provision = known.provision
    body = identity.claim(known.state, provision, known.key)
    try:
        status, answer = await _post(known.state, provision, body)
    except (NetworkError, EnrolmentRefused):
        return None
    return None if status == 200 else findings.judgement(_code(status, answer))


async def enrol_again(state: Path) -> Identity:
    """For a device with a new claim, made for it: a new key takes the place of the one it has,
    which was revoked, or may be in other hands. After a crash, the same call goes on with that key.

    Raises what `enrol` raises.
    """
    provision = identity.load_provision(state)
    identity.load(state)  # finishes a swap that a crash cut short
    keys = keystore.of(state)
    return await _ask(state, provision, keys.get(Slot.NEXT) or keys.make(Slot.NEXT))


async def _ask(state: Path, provision: Provision, key: Key | None = None) -> Identity:
    status, body = await _post(state, provision, identity.claim(state, provision, key))
    if status == 200:
        return identity.accept(state, provision, body, key)
    if status == 429 or status >= 500:
        raise NetworkError(
            _("The enrolment server answered {status}; it is tried again.").format(status=status)
        )
    code = _code(status, body)
    raise EnrolmentRefused(_explain(status, code), code)


async def until_enrolled(
    state: Path, trouble: Callable[[str], None], hurry: asyncio.Event | None = None
) -> Identity:
    """Try until there is an identity; `trouble` is told why there is none. `hurry` ends a pause, as
    the site has set another proxy. Raises StateError."""
    hurry = hurry or asyncio.Event()
    pause, longest = AGAIN_S
    while True:
        hurry.clear()
        try:
            known = await enrol(state)
        except NetworkError as error:
            trouble(str(error))
            log.warning("not enrolled yet: %s", error)
            await _rest(random.uniform(0.5, 1) * pause, hurry)  # noqa: S311
            pause = min(pause * 2, longest)
        except EnrolmentRefused as error:
            trouble(str(error))
            log.error("not enrolled: %s", error)
            await _rest(REFUSED_AGAIN_S, hurry)
        else:
            trouble("")
            return known


async def _rest(seconds: float, hurry: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await hurry.wait()


async def _post(state: Path, provision: Provision, body: bytes) -> tuple[int, bytes]:
    proxy = settings.load(state).proxy
    host, port = provision.enrol.host, provision.enrol.port
    url = f"https://{f'[{host}]' if ':' in host else host}:{port}/enrol/v1"
    try:
        async with (
            asyncio.timeout(DEADLINE_S),
            httpx.AsyncClient(
                verify=identity.pinned_context(provision.anchors),
                proxy=_proxy(proxy),
                trust_env=False,
                follow_redirects=False,
                timeout=10.0,
            ) as client,
            client.stream(
                "POST", url, content=body, headers={"content-type": "application/json"}
            ) as answer,
        ):
            received = bytearray()
            async for chunk in answer.aiter_bytes():
                received += chunk
                if len(received) > MAX_ANSWER:
                    raise EnrolmentRefused(_("The server's answer is too long."))
            return answer.status_code, bytes(received)
    except (httpx.HTTPError, TimeoutError) as error:
        known = await asyncio.to_thread(_diagnose, provision, proxy)
        raise NetworkError(known or _unexplained(error, f"{host}:{port}")) from error


def _proxy(proxy: Proxy | None) -> httpx.Proxy | None:
    if proxy is None:
        return None
    auth = None if proxy.user is None else (proxy.user, proxy.password or "")
    return httpx.Proxy(f"http://{proxy}", auth=auth)


def _diagnose(provision: Provision, proxy: Proxy | None) -> str:
    """What is wrong on the way and where to look (R-CON-7); "" if nothing is wrong now."""
    context = identity.pinned_context(provision.anchors)
    route = Route(provision.enrol, proxy=proxy)
    try:
        Journey(route, context, DIAGNOSE_S, alpn=AS_ANYBODY).travel().close()
    except Astray as error:
        return words.tell(classify(error.observation))
    return ""


def _unexplained(error: Exception, server: str) -> str:
    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return _("{server} does not answer: check that the firewall lets it through.").format(
            server=server
        )
    return _("{server} cannot be reached: {error}.").format(server=server, error=error)


def _code(status: int, body: bytes) -> str:
    try:
        code = msgspec.json.decode(body, type=_Refusal).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        code = ""
    # The server's own words are not shown: what a person reads here is ours and translated.
    if not code.isascii() or not code.replace("_", "").isalnum() or len(code) > 32:
        code = str(status)
    return code


def _explain(status: int, code: str) -> str:
    known = findings.judgement(code)
    if known in (Code.OWN_REVOKED, Code.OWN_SUPERSEDED):
        return words.tell(Finding(known))
    if code == "board_changed":
        return _(
            "This claim is for an injector with another audit key ({code}): ask the vendor to "
            "retire that one and to make an ordinary claim."
        ).format(code=code)
    if status == 409:
        return _(
            "This claim was used with another key ({code}); ask the vendor for a new one."
        ).format(code=code)
    return _(
        "The server refused to enrol this injector ({code}): ask the vendor to check its serial "
        "number and claim."
    ).format(code=code)
