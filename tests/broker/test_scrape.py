"""The address where metrics are read: one question, one answer, bounded. Requirement: R-PRV-1."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from prometheus_client import CollectorRegistry, Counter

from broker import scrape


@pytest.fixture
async def port() -> AsyncIterator[int]:
    registry = CollectorRegistry()
    Counter("patency_seen", "What was seen", registry=registry).inc(3)
    async with scrape.listening("127.0.0.1", 0, registry) as port:
        yield port


async def ask(port: int, request: bytes, wait_s: float = 10.0) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        async with asyncio.timeout(wait_s):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_a_program_reads_them(port: int) -> None:
    answer = await ask(port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    head, _empty, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=")
    assert f"Content-Length: {len(body)}".encode() in head
    assert b"patency_seen_total 3.0" in body
    only = await ask(port, b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert only.partition(b"\r\n\r\n")[2] == b""
    assert f"Content-Length: {len(body)}".encode() in only


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"404"),
        (b"GET /metrics/x HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405"),
        (b"GET /metrics\r\n\r\n", b"400"),
        (b"\x16\x03\x01\r\n\r\n", b"400"),
    ],
)
async def test_nothing_else_is_there(port: int, request_: bytes, status: bytes) -> None:
    answer = await ask(port, request_)
    assert answer.split(b" ")[1] == status
    assert b"patency_seen" not in answer


async def test_whoever_sends_too_much_or_nothing_is_sent_away(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrape, "REQUEST_S", 0.3)
    assert await ask(port, b"x" * 100_000) == b""
    assert await ask(port, b"GET /metrics HT") == b""


async def test_few_at_a_time(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape, "REQUEST_S", 2.0)
    silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(scrape.MOST)]
    await asyncio.sleep(0.1)
    assert await ask(port, b"GET /metrics HTTP/1.1\r\n\r\n", 1.0) == b""
    for _reader, writer in silent:
        writer.close()
    await asyncio.sleep(0.1)
    assert b"200 OK" in await ask(port, b"GET /metrics HTTP/1.1\r\n\r\n")
