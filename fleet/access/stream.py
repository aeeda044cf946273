"""The stream endpoint: `/ws/stream/<session>`, a bare ASGI websocket between client and hub.

Not a Channels consumer: that costs ten times as much per byte. The door is the same one as
everywhere: who is it, may they see the session, are they the specialist who asked, is it active.
Binary messages both ways, one frame each; once the door has opened they go between the socket and
the hub without ASGI (fleet.core.websocket). Closed with

    4400  what came is no frame of ours        4408  frames wait and are not taken
    4401  not signed in                        4409  the session is not active, or not any more
    4403  not your session, or another origin  4410  another connection has taken its streams
    4404  there is no such session for you    4429  too many connections to this session
    1013  the database is away: try again

The browser client cannot set a header, so its pass comes as a subprotocol, `bearer.<pass>`, beside
`patency.stream.1`. Addresses get logged, so no secret is ever in one.

While it is open, the right to it is asked again every `RECHECK_S`, and bytes are counted in the
session's row; an end known to this process closes it at once.
"""

import asyncio
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any

from django.conf import settings
from django.contrib.sessions.backends.db import SessionStore
from django.db import DatabaseError
from django.db.models import F

from agent.wire.catalogue import SessionState
from fleet.access import passes, selectors
from fleet.access.hub import Channel, Client, FrameRefusedError, Hub
from fleet.access.hub import hub as the_hub
from fleet.access.models import Session
from fleet.accounts.authentication import bearer
from fleet.accounts.doors import person_of
from fleet.accounts.models import User
from fleet.accounts.permissions import Action, allowed
from fleet.accounts.selectors import live_token
from fleet.core import clock
from fleet.core.asgi import Receive, Scope, Send, refuse_websocket
from fleet.core.threads import in_thread
from fleet.core.websocket import WebSocket, direct

RECHECK_S = 1.0
BELIEVED_S = 30.0  # how long an answer holds while the database gives no other
FULL_S = 15.0  # for a full device connection to take a frame
CLOSE_S = 5.0  # for a full websocket to take the close
_PAUSES_S = (0.0, 0.0, 0.0, 0.001, 0.002, 0.005, 0.01)  # then the last one again and again
GONE = 1000  # the client closed by itself: nothing to say
TRY_LATER = 1013
PROTOCOL = "patency.stream.1"  # what the browser client speaks; nothing else names one
_BEARER = "bearer."
_PATH = re.compile(r"/ws/stream/([0-9a-f]{32})")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pass:
    """What a handshake brought to show who it is; looked at again while the stream is open."""

    token: str | None
    cookie: str | None
    origin: str | None
    browser: str | None = None  # the browser client's pass, in Sec-WebSocket-Protocol


class DoorClosedError(Exception):
    """The stream may not be opened, or not any longer; `code` says why."""

    def __init__(self, code: int) -> None:
        super().__init__(str(code))
        self.code = code


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """One websocket, from its handshake to its end."""
    await serve(scope, receive, send, the_hub)


async def serve(scope: Scope, receive: Receive, send: Send, hub: Hub) -> None:
    match = _PATH.fullmatch(scope["path"])
    try:
        if match is None:
            raise DoorClosedError(4404)
        shown = _shown(scope)
        device = await in_thread(admit, shown, match[1])
        channel, client = hub.join(bytes.fromhex(match[1]), device)
    except (DoorClosedError, FrameRefusedError) as refusal:
        await refuse_websocket(receive, send, refusal.code, _subprotocol(scope))
        return
    except DatabaseError:
        log.exception("cannot ask who may use a stream")
        await refuse_websocket(receive, send, TRY_LATER, _subprotocol(scope))
        return
    try:
        pump = _Pump(channel, client, direct(scope))
        message = await receive()
        if message["type"] == "websocket.connect":
            await send({"type": "websocket.accept", "subprotocol": _subprotocol(scope)})
            await _carry(pump, shown, receive, send)
    finally:
        hub.leave(channel, client)
        await _count(channel)


class _Pump:
    """Frames between a websocket and the hub, each in the call that brings it. A Receiver.

    A frame for which the device has no room is offered again for a while; meanwhile the client is
    read no further.
    """

    def __init__(self, channel: Channel, client: Client, websocket: WebSocket) -> None:
        self.channel = channel
        self.client = client
        self.websocket = websocket
        self._loop = asyncio.get_running_loop()
        self._until = 0.0
        self._again: asyncio.TimerHandle | None = None

    def message(self, data: bytes) -> None:
        try:
            if not Hub.from_client(self.channel, self.client, data):
                self.websocket.pause()
                self._until = self._loop.time() + FULL_S
                self._wait(data, 0)
        except FrameRefusedError as refusal:
            self.client.close(refusal.code)

    def text(self) -> None:
        self.client.close(4400)

    def resume_writing(self) -> None:
        self.client.resume(self.websocket.write)

    def pause_writing(self) -> None:
        self.client.pause()

    def _wait(self, frame: bytes, attempt: int) -> None:
        # The gate does not say when it has room; with a full buffer of 64 KiB it soon has.
        pause_s = _PAUSES_S[min(attempt, len(_PAUSES_S) - 1)]
        self._again = self._loop.call_later(pause_s, self._offer, frame, attempt + 1)

    def _offer(self, frame: bytes, attempt: int) -> None:
        try:
            if Hub.from_client(self.channel, self.client, frame):
                self.websocket.go_on()
            elif self._loop.time() > self._until:
                self.client.close(4408)
            else:
                self._wait(frame, attempt)
        except FrameRefusedError as refusal:
            self.client.close(refusal.code)

    def stop(self) -> None:
        self.websocket.give_back()
        if self._again is not None:
            self._again.cancel()


async def _carry(pump: _Pump, shown: Pass, receive: Receive, send: Send) -> None:
    """Until either side, or the session, is over."""
    channel, client, websocket = pump.channel, pump.client, pump.websocket
    try:
        if not websocket.take(pump):
            client.close(4400)
        async with asyncio.TaskGroup() as group:
            gone = group.create_task(_gone(client, receive))
            check = group.create_task(_recheck(channel, client, shown))
            code = await client.closed()
            gone.cancel()
            check.cancel()
        if code != GONE:
            await _close(websocket, code, send)
    finally:
        pump.stop()


async def _gone(client: Client, receive: Receive) -> None:
    """Until the client leaves: its frames do not come this way."""
    await receive()
    client.close(GONE)


async def _close(websocket: WebSocket, code: int, send: Send) -> None:
    """Say why, unless the client reads nothing any more: `send` waits while its socket is full."""
    try:
        async with asyncio.timeout(CLOSE_S):
            await send({"type": "websocket.close", "code": code})
    except TimeoutError:
        websocket.abort()


async def _recheck(channel: Channel, client: Client, shown: Pass) -> None:
    """Until the right to the stream is gone. While the database gives no answer the last one holds,
    but not for long."""
    session, loop = channel.session.hex(), asyncio.get_running_loop()
    allowed_at = loop.time()
    while True:
        await asyncio.sleep(RECHECK_S)
        try:
            await in_thread(admit, shown, session)
        except DoorClosedError as refusal:
            client.close(refusal.code)
            return
        except DatabaseError:
            log.warning("session %s: cannot ask whether it may go on", session)
            if loop.time() - allowed_at > BELIEVED_S:
                client.close(TRY_LATER)
                return
        else:
            allowed_at = loop.time()
            await _count(channel)


async def _count(channel: Channel) -> None:
    up, down = channel.bytes_up, channel.bytes_down
    if not up and not down:
        return
    channel.bytes_up = channel.bytes_down = 0
    rows = Session.objects.filter(pk=channel.session.hex())
    try:
        await in_thread(rows.update, bytes_up=F("bytes_up") + up, bytes_down=F("bytes_down") + down)
    except DatabaseError:
        channel.bytes_up += up
        channel.bytes_down += down


# --- the door -----------------------------------------------------------------------------------


def admit(shown: Pass, session_id: str) -> str:
    """The session's device, if whoever shows this pass may use the session's stream now.

    Raises DoorClosedError. Uses the database.
    """
    user = _user(shown, session_id)
    if user is None:
        raise DoorClosedError(4401)
    session = selectors.sessions_for(user).filter(pk=session_id).first()
    if session is None:
        raise DoorClosedError(4404)
    if session.specialist_id != user.pk or not allowed(user, Action.ACCESS_ANSWER):
        raise DoorClosedError(4403)
    if session.state != SessionState.ACTIVE.value:
        raise DoorClosedError(4409)
    return session.device_id


def _user(shown: Pass, session_id: str) -> User | None:
    if shown.browser is not None:
        return _of_browser(shown.browser, shown.origin, session_id)
    if shown.token is not None:
        token = live_token(shown.token, now=clock.now())
        return token.person() if token is not None else None
    if shown.cookie is None:
        return None
    # A browser sends the cookie with whatever page asks: only our own pages may (CSRF).
    if shown.origin not in settings.PATENCY_ORIGINS:
        raise DoorClosedError(4403)
    return person_of(SessionStore(shown.cookie))


def _of_browser(token: str, origin: str | None, session_id: str) -> User | None:
    """The owner of a pass for this very session, shown by a page of the access origin."""
    if not origin or origin != settings.PATENCY_ACCESS_ORIGIN:
        raise DoorClosedError(4403)
    found = passes.bearer_of(token, now=clock.now())
    return found[0] if found is not None and found[1].pk == session_id else None


def _shown(scope: Mapping[str, Any]) -> Pass:
    headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
    token = bearer(headers.get(b"authorization", ""))
    jar: SimpleCookie = SimpleCookie()
    try:
        jar.load(headers.get(b"cookie", ""))
    except CookieError:
        jar.clear()
    morsel = jar.get(settings.SESSION_COOKIE_NAME)
    return Pass(
        token=token if token is None else token[:200],
        cookie=morsel.value if morsel is not None else None,
        origin=headers.get(b"origin"),
        browser=next(
            (each[len(_BEARER) :][:200] for each in _offered(scope) if each.startswith(_BEARER)),
            None,
        ),
    )


def _offered(scope: Mapping[str, Any]) -> Sequence[str]:
    return scope.get("subprotocols") or ()


def _subprotocol(scope: Mapping[str, Any]) -> str | None:
    """What to answer a client that names some: a browser takes no answer that names none."""
    return PROTOCOL if PROTOCOL in _offered(scope) else None
