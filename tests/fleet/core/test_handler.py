"""Django behind ASGI: bounds on the body, one thread for a request, files, languages."""

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.testing import ApplicationCommunicator
from django.http import FileResponse, HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import override_settings
from django.urls import path
from django.utils.translation import get_language

from fleet.core import handler
from fleet.core.handler import PortalHandler

THREADS: list[str] = []


def _echo(request: HttpRequest) -> HttpResponse:
    THREADS.append(threading.current_thread().name)
    return HttpResponse(request.body + b" " + (get_language() or "").encode())


def _stream(request: HttpRequest) -> StreamingHttpResponse:
    def parts() -> Iterator[bytes]:
        for number in range(3):
            THREADS.append(threading.current_thread().name)
            yield b"%d" % number

    return StreamingHttpResponse(parts())


def _file(request: HttpRequest) -> FileResponse:
    return FileResponse(open(__file__, "rb"))  # noqa: PTH123  (the response closes it)


def _fail(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("a fault of ours")


urlpatterns = [
    path("echo", _echo),
    path("stream", _stream),
    path("file", _file),
    path("fail", _fail),
]
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def portal() -> Iterator[PortalHandler]:
    THREADS.clear()
    with override_settings(
        ROOT_URLCONF=__name__, MIDDLEWARE=["django.middleware.locale.LocaleMiddleware"]
    ):
        made = PortalHandler()
        yield made
        made._pool.shutdown()


def _scope(path: str, **headers: str) -> dict[str, Any]:
    return {
        "type": "http", "method": "POST", "path": path, "query_string": b"",
        "headers": [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()],
    }  # fmt: skip


async def _ask(
    portal: PortalHandler, path: str, *bodies: bytes, **headers: str
) -> tuple[int, bytes]:
    there = ApplicationCommunicator(portal, _scope(path, **headers))
    parts = bodies or (b"",)
    for number, body in enumerate(parts, 1):
        await there.send_input(
            {"type": "http.request", "body": body, "more_body": number < len(parts)}
        )
    start = await there.receive_output(timeout=5)
    content = b""
    while True:
        part = await there.receive_output(timeout=5)
        content += part.get("body", b"")
        if not part.get("more_body"):
            break
    await there.wait()
    return start["status"], content


async def test_a_request_runs_in_the_pool_in_its_own_language(portal: PortalHandler) -> None:
    answers = await asyncio.gather(
        *(
            _ask(portal, "/echo", b"one", b"two", accept_language=language)
            for language in ("fr-CA", "en") * 10
        )
    )
    assert answers == [(200, b"onetwo fr-ca"), (200, b"onetwo en")] * 10
    assert all(name.startswith("request") for name in THREADS)
    assert get_language() != "fr-ca"


async def test_streams_and_files_are_read_in_the_pool(portal: PortalHandler) -> None:
    assert await _ask(portal, "/stream") == (200, b"012")
    assert all(name.startswith("request") for name in THREADS)
    status, content = await _ask(portal, "/file")
    assert (status, content.startswith(b'"""Django behind ASGI')) == (200, True)


async def test_a_body_too_long_or_too_slow(
    portal: PortalHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = bytes(handler.MAX_BODY // 2 + 1)
    status, content = await _ask(portal, "/echo", part, part, b"never read")
    assert (status, content) == (413, b"The request is too large. Send less at once.")
    status, content = await _ask(portal, "/api/v1/jobs/", part, part, accept_language="fr-CA")
    assert status == 413
    told = json.loads(content)
    assert told["error"] == "too_large"
    assert told["detail"].startswith("La requ\u00eate est trop volumineuse")
    monkeypatch.setattr(handler, "BODY_S", 0.05)
    there = ApplicationCommunicator(portal, _scope("/echo"))
    await there.send_input({"type": "http.request", "body": b"x", "more_body": True})
    assert (await there.receive_output(timeout=5))["status"] == 408


async def test_a_client_that_leaves_in_the_middle(portal: PortalHandler) -> None:
    there = ApplicationCommunicator(portal, _scope("/echo"))
    await there.send_input({"type": "http.request", "body": b"x", "more_body": True})
    await there.send_input({"type": "http.disconnect"})
    await there.wait(timeout=5)
    assert await there.receive_nothing()
    assert not THREADS


async def test_too_many_at_once(portal: PortalHandler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler, "WAITING", 0)
    assert (await _ask(portal, "/echo"))[0] == 503


async def test_a_fault_of_ours_is_a_500_and_over(portal: PortalHandler) -> None:
    status, content = await _ask(portal, "/fail")
    assert status == 500
    assert b"a fault of ours" not in content
    assert (await _ask(portal, "/echo", b"x"))[0] == 200
    assert (await _ask(portal, "/none"))[0] == 404
