"""The live websocket. It carries hints and live samples only; a session's bytes never pass here."""

import asyncio
import json
import logging
from collections import Counter
from time import monotonic
from typing import Any

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer

from fleet.accounts.doors import person_of
from fleet.accounts.models import User
from fleet.live import door
from fleet.live.groups import Group, Kind, parse
from fleet.live.hinter import hinter
from fleet.live.leases import leases

log = logging.getLogger(__name__)

MAX_GROUPS = 64  # watched by one page
MAX_MESSAGE = 8 * 1024  # characters of one message from a page
MAX_MESSAGES = 30  # from a page, in each MESSAGE_WINDOW_S
MESSAGE_WINDOW_S = 10.0
MAX_SOCKETS = 30  # open pages of one person in this process
TICK_S = 5.0
RECHECK_S = 30.0  # how long a page may go on after its right has ended

# Close codes; 44xx mirrors HTTP.
MALFORMED, SIGNED_OUT, TOO_MANY = 4400, 4401, 4429

_sockets: Counter[int] = Counter()


class LiveConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]  # channels ships no types
    """One page's websocket. See the package's docstring for the protocol."""

    user: User | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.watched: dict[Group, bool] = {}  # -> whether live samples are wanted as well
        self._window_start, self._window_count = monotonic(), 0

        async def send_if_there(message: Any) -> None:
            try:
                await send(message)
            except OSError:  # ASGI's way to say that the page has gone; its disconnect follows
                log.debug("a page left while it was being told something")

        async with asyncio.TaskGroup() as tasks:
            ticker = tasks.create_task(self._tick())
            try:
                await super().__call__(scope, receive, send_if_there)
            finally:
                ticker.cancel()
                self._release()

    # --- the page's side ----------------------------------------------------------------------

    async def connect(self) -> None:
        await self.accept()  # first, so that the page learns a close code
        user = await database_sync_to_async(person_of)(self.scope["session"])
        if user is None:
            await self.close(SIGNED_OUT)
            return
        if _sockets[user.pk] >= MAX_SOCKETS:
            await self.close(TOO_MANY)
            return
        _sockets[user.pk] += 1
        self.user = user
        hinter.bind(asyncio.get_running_loop())

    async def disconnect(self, code: int) -> None:
        for group in list(self.watched):
            await self._leave(group)

    def _release(self) -> None:
        if self.user is not None:
            _sockets[self.user.pk] -= 1
            if not _sockets[self.user.pk]:
                del _sockets[self.user.pk]
            self.user = None

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if self.user is None:
            return  # closing
        if self._too_fast():
            await self.close(TOO_MANY)
            return
        message = _read(text_data)
        if message is None:
            await self.close(MALFORMED)
            return
        for name in message.get("unwatch", []):
            if (group := parse(name)) is not None and group in self.watched:
                await self._leave(group)
        if "watch" in message:
            await self._watch(self.user, message["watch"], message.get("live", True))

    async def _watch(self, user: User, names: list[Any], live: bool) -> None:
        refused = []
        for name in names[: MAX_GROUPS + 1]:
            group = parse(name)
            full = len(self.watched) >= MAX_GROUPS and group not in self.watched
            if (
                group is None
                or full
                or not await database_sync_to_async(door.may_watch)(user, group)
            ):
                # One answer for what is not there, not for this reader, or not a group at all.
                refused.append(name if isinstance(name, str) else None)
                continue
            self.watched[group] = live and group.kind is Kind.DEVICE and door.may_see_live(user)
            await self.channel_layer.group_add(str(group), self.channel_name)
        await self._touch()
        await self._tell({"watching": sorted(map(str, self.watched)), "refused": refused})

    def _too_fast(self) -> bool:
        now = monotonic()
        if now - self._window_start > MESSAGE_WINDOW_S:
            self._window_start, self._window_count = now, 0
        self._window_count += 1
        return self._window_count > MAX_MESSAGES

    # --- the portal's side --------------------------------------------------------------------

    async def hint(self, event: dict[str, Any]) -> None:
        """From the channel layer: pass on to the page what it still watches."""
        group = parse(event["group"])
        if group is None or group not in self.watched:
            return
        payload = event["payload"]
        if payload.get("kind") == "live" and not self.watched[group]:
            return
        await self._tell({**payload, "group": event["group"]})
        if self.watched[group] and payload.get("online") is True:
            await leases.touch(group.id, again=True)  # it has just connected and knows of no lease

    async def _tick(self) -> None:
        checked = monotonic()
        while True:
            await asyncio.sleep(TICK_S)
            if monotonic() - checked >= RECHECK_S and self.user is not None:
                checked = monotonic()
                await self._recheck()
            await self._touch()

    async def _recheck(self) -> None:
        """Rights end while pages stay open: ask again for the person and for each group."""
        user = await database_sync_to_async(person_of)(self.scope["session"])
        if user is None:
            await self.close(SIGNED_OUT)
            return
        self.user = user
        for group, live in list(self.watched.items()):
            if await database_sync_to_async(door.may_watch)(user, group):
                self.watched[group] = live and door.may_see_live(user)
                # Again: the layer forgets a channel that was slow once.
                await self.channel_layer.group_add(str(group), self.channel_name)
            else:
                await self._leave(group)
                await self._tell({"refused": [str(group)]})

    async def _touch(self) -> None:
        for group, live in list(self.watched.items()):
            if live:
                await leases.touch(group.id)

    async def _leave(self, group: Group) -> None:
        self.watched.pop(group, None)
        await self.channel_layer.group_discard(str(group), self.channel_name)

    async def _tell(self, message: dict[str, Any]) -> None:
        await self.send(text_data=json.dumps(message, separators=(",", ":")))


def _read(text: str | None) -> dict[str, Any] | None:
    """A message of the page, or None when it is none."""
    if text is None or len(text) > MAX_MESSAGE:
        return None
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict) or not set(message) <= {"watch", "unwatch", "live"}:
        return None
    lists = (message.get("watch", []), message.get("unwatch", []))
    if not all(isinstance(names, list) for names in lists):
        return None
    return message if isinstance(message.get("live", True), bool) else None
