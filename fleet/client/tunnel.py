"""A session's websocket, kept up while the session lasts."""

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from websockets.exceptions import InvalidHandshake, ProxyError, WebSocketException

from agent.wire.patience import RESUME_S
from fleet.client import advice, words
from fleet.client.carrier import Carrier
from fleet.client.dial import dial
from fleet.client.errors import ClientError, NotAllowed, NotFound, SessionOver, Unreachable
from fleet.client.i18n import _, gettext_noop
from fleet.client.portal import Portal

# Holds the websocket and calls back once it is there: carry() with all but its last argument.
Carrying = Callable[[Callable[[], None]], Coroutine[Any, Any, None]]
E = TypeVar("E", bound=BaseException)

AWAY_S = 30.0  # how long the portal may be unreachable before a command without streams gives up
_SILENT_S = 2.0  # a shorter break is not worth a word
_STEADY_S = 5.0  # a connection that lasted so long counts as good
_FIRST_DELAY_S = 0.2
_MAX_DELAY_S = 5.0
_REFUSALS = {
    4401: gettext_noop("The portal does not accept the token. Sign in again with: {command}"),
    4403: gettext_noop("Only the specialist who asked for the session may use it."),
    4404: gettext_noop("The portal does not know this session."),
    4429: gettext_noop("Too many commands use this session at once. End one of them."),
}


async def carry(
    portal: Portal,
    session: str,
    carrier: Carrier,
    say: Callable[[str], None],
    ready: Callable[[], None],
) -> None:
    """Hold the session's websocket; connect again when it breaks and the session is still active.

    Open streams go on over the next one. `say` tells the person of a break that they would notice.
    Never returns. Raises a group with SessionOver, NotAllowed, NotFound or Unreachable.
    """
    async with asyncio.TaskGroup() as group:
        group.create_task(carrier.watch())
        await _Holder(portal, session, carrier, say).hold(ready)


class _Holder:
    """One websocket after the other, and what the person is told of what lies between."""

    def __init__(
        self, portal: Portal, session: str, carrier: Carrier, say: Callable[[str], None]
    ) -> None:
        self._portal = portal
        self._session = session
        self._carrier = carrier
        self._say = say
        self._told = False  # of the break that lasts
        self._good_at = asyncio.get_running_loop().time()
        self._delay_s = _FIRST_DELAY_S

    async def hold(self, ready: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            why, close_code = await self._carry_on(ready)
            if loop.time() - started > _STEADY_S:
                self._good_at, self._delay_s = loop.time(), _FIRST_DELAY_S
            await _judge(self._portal, self._session, close_code)
            self._tell(why, away_s=loop.time() - self._good_at)
            await asyncio.sleep(self._delay_s * random.uniform(0.5, 1))  # noqa: S311
            self._delay_s = min(2 * self._delay_s, _MAX_DELAY_S)

    async def _carry_on(self, ready: Callable[[], None]) -> tuple[str, int | None]:
        """Until one websocket is over, or cannot be had. Returns why, and its close code."""
        try:
            websocket = await dial(self._portal, self._session, self._carrier)
        except (OSError, TimeoutError, WebSocketException) as error:
            return _plain(error), None
        ready()
        if self._told:
            self._say(_("Connected again."))
            self._told = False
        await self._carrier.attach(websocket)
        return _("it closed the connection"), websocket.close_code

    def _tell(self, why: str, *, away_s: float) -> None:
        """Say that the connection is lost, once, when it has lasted. Raises Unreachable when it
        has lasted too long."""
        streams = self._carrier.mux.streams
        if away_s > _SILENT_S and streams and not self._told:
            self._say(
                _(
                    "The connection is lost: {why}. Connecting again; "
                    "nothing typed or sent is lost."
                ).format(why=why)
            )
            self._told = True
        if away_s > (RESUME_S if streams else AWAY_S):
            raise Unreachable(
                _(
                    "The connection to {url} is lost: {why}. "
                    "The session may still be active: run the command again."
                ).format(url=self._portal.url, why=why)
            )


def _plain(error: Exception) -> str:
    if isinstance(error, InvalidHandshake) and not isinstance(error, ProxyError):
        return _("it does not take the connection ({error})").format(error=error)
    return str(error) or type(error).__name__


async def _judge(portal: Portal, session: str, close_code: int | None) -> None:
    """Return when it makes sense to connect again."""
    with contextlib.suppress(Unreachable):
        shown = await asyncio.to_thread(portal.session, session)
        if shown["state"] != "active":
            raise SessionOver(words.over(shown["state"], shown.get("state_reason")))
    if close_code in _REFUSALS:
        kind = NotFound if close_code == 4404 else NotAllowed
        raise kind(_(_REFUSALS[close_code]).format(command=advice.command("login")))


def first(group: BaseExceptionGroup[E]) -> E:
    """The first exception of a group, however deep."""
    inner = group.exceptions[0]
    return first(inner) if isinstance(inner, BaseExceptionGroup) else inner


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, with which an echo takes two thirds of the time; asyncio's own where there is none
    (Windows)."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run to the end. Of the errors of tasks that failed together, raises the first ClientError."""
    found: list[ClientError] = []
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(main)
    except* ClientError as errors:
        found.append(first(errors))
    if found:
        raise found[0]
