"""Django behind ASGI, with the whole of a request in one thread of a small pool.

Django's own handler starts a thread for each request, opens the database anew in it and crosses
between loop and thread twice for every middleware: most of the time of a short request. It also
takes a body of any length at any pace before it looks at it. Here the body is read within bounds on
the loop, then middleware, view and database run in one hop in a pooled thread, which keeps its
connection. A slow reader of an answer holds no thread; files are read from in the pool as well.
"""

import asyncio
import contextvars
import io
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from django.core import signals
from django.core.handlers.asgi import ASGIHandler, get_script_prefix
from django.http import HttpResponse, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.urls import set_script_prefix
from django.utils import translation
from django.utils.translation import get_language_from_request

from fleet.core import api
from fleet.core.asgi import Receive

THREADS = 12  # SQLite has one writer at a time; readers wait for the interpreter anyway
MAX_BODY = 2 * 1024 * 1024  # bytes; Django's own limit on what a view reads is lower
BODY_S = 20.0  # for a body to arrive whole
WAITING = 500  # requests at most that are in the pool or wait for it

T = TypeVar("T")


class _GoneError(Exception):
    """The client has left before its request was whole."""


class PortalHandler(ASGIHandler):
    """One for the process; Django must be set up before it is made."""

    def __init__(self) -> None:
        # Not ASGIHandler's: that one loads the middleware for the loop.
        self.load_middleware(is_async=False)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="request")
        self._under_way = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One HTTP request, from its first byte to the last of the answer."""
        try:
            body = await _read(receive)
        except _GoneError:
            return
        except TimeoutError:
            await self._refuse(scope, send, 408, "timeout")
            return
        if body is None:
            await self._refuse(scope, send, 413, "too_large")
            return
        if self._under_way >= WAITING:
            await self._refuse(scope, send, 503, "busy")
            return
        self._under_way += 1
        try:
            response = await self._in_pool(self._respond, scope, body)
        finally:
            self._under_way -= 1
        await self._answer(response, send)

    async def _answer(self, response: HttpResponseBase, send: Any) -> None:
        try:
            if isinstance(response, StreamingHttpResponse):
                content = response.streaming_content
                if isinstance(content, Iterator):
                    response.streaming_content = self._parts(content)
            await self.send_response(response, send)
        finally:
            if response.streaming:
                await self._in_pool(response.close)

    def _respond(self, scope: Any, body: bytes) -> HttpResponseBase:
        """In a thread of the pool: everything of the request that may wait."""
        set_script_prefix(get_script_prefix(scope))
        signals.request_started.send(sender=self.__class__, scope=scope)
        request, error = self.create_request(scope, io.BytesIO(body))
        response = error if request is None else self.get_response(request)
        if response is None:
            raise AssertionError("neither a request nor an error")
        if isinstance(response, HttpResponse):
            response.close()  # ends the request for the database; its content stays
        return response

    async def _parts(self, parts: Iterator[bytes]) -> AsyncIterator[bytes]:
        while (part := await self._in_pool(next, parts, None)) is not None:
            yield part

    async def _in_pool(self, call: Callable[..., T], *arguments: Any) -> T:
        # A context of its own: the language and the URL prefix belong to one request.
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, context.run, call, *arguments)

    async def _refuse(self, scope: Any, send: Any, status: int, code: str) -> None:
        """Before any of Django runs: in the language that the browser asks for."""
        request, _error = self.create_request({**scope, "headers": _few(scope)}, io.BytesIO())
        response: HttpResponse
        language = get_language_from_request(request) if request is not None else "en"
        with translation.override(language):
            told = api.plain(code)
        if request is not None and api.wants_json(request):
            response = JsonResponse(told, status=status)
        else:
            response = HttpResponse(told["detail"], status=status, content_type="text/plain")
        response["Connection"] = "close"
        response["Content-Language"] = language
        await self.send_response(response, send)


def _few(scope: Any) -> list[tuple[bytes, bytes]]:
    """The headers that say which language to answer in."""
    return [(k, v) for k, v in scope["headers"] if k in (b"accept-language", b"cookie")]


async def _read(receive: Receive) -> bytes | None:
    """The body, or None when it is too long. Raises _GoneError, TimeoutError."""
    body = bytearray()
    async with asyncio.timeout(BODY_S):
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _GoneError
            body += message.get("body", b"")
            if len(body) > MAX_BODY:
                return None
            if not message.get("more_body", False):
                return bytes(body)
