"""The relay does to a connection what it says, or what is measured through it means nothing."""

import asyncio
import contextlib
import random
import socket
import time
from collections.abc import AsyncIterator

import pytest

from tests.relay import CLEAR, SEGMENT, Path, Relay, Weather, relaying


@contextlib.asynccontextmanager
async def echoing() -> AsyncIterator[int]:
    """A server that sends everything back; its port."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@contextlib.asynccontextmanager
async def through(
    relay: Relay,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _echo(ends: tuple[asyncio.StreamReader, asyncio.StreamWriter], data: bytes) -> float:
    """Seconds until all of it was back, unchanged."""
    reader, writer = ends
    began = time.monotonic()
    writer.write(data)
    async with asyncio.timeout(20):
        assert await reader.readexactly(len(data)) == data
    return time.monotonic() - began


async def test_everything_passes_in_order_and_the_end_too() -> None:
    data = random.Random(1).randbytes(3_000_000)
    async with echoing() as port, Relay(port) as relay, through(relay) as ends:
        reader, writer = ends
        writer.write(data)
        writer.write_eof()
        async with asyncio.timeout(20):
            assert await reader.read(-1) == data
        assert relay.passed == [len(data), len(data)]
        assert relay.opened == 1


async def test_a_round_trip_takes_twice_the_delay() -> None:
    async with echoing() as port, Relay(port) as relay, through(relay) as ends:
        at_once = [await _echo(ends, b"x") for _ in range(5)]
        assert min(at_once) < 0.1
        relay.weather = Weather(delay_s=0.15)
        later = [await _echo(ends, b"x") for _ in range(5)]
        assert min(later) >= 0.3
        assert sorted(later)[1] < 0.6  # a busy machine may be late now and then


async def test_a_rate_is_kept_and_shared_by_the_connections() -> None:
    async with echoing() as port, Relay(port) as relay:
        relay.weather = Weather(rate=40_000, buffer=4096)
        async with through(relay) as one, through(relay) as other:
            began = time.monotonic()
            await asyncio.gather(_echo(one, bytes(20_000)), _echo(other, bytes(20_000)))
            assert 0.9 <= time.monotonic() - began < 10


async def test_in_a_black_hole_nothing_passes_and_nothing_is_closed() -> None:
    async with echoing() as port, Relay(port) as relay, through(relay) as ends:
        await _echo(ends, b"before")
        relay.black_hole()
        await asyncio.sleep(0)
        reader, writer = ends
        writer.write(b"during")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await reader.read(1)
        assert relay.connections == 1
        relay.restore()
        async with asyncio.timeout(10):
            assert await reader.readexactly(6) == b"during"


async def test_a_cut_resets_both_ends_and_refusing_keeps_others_out() -> None:
    async with echoing() as port, Relay(port) as relay:
        async with through(relay) as ends:
            await _echo(ends, b"before")
            relay.cut()
            with pytest.raises(ConnectionResetError):
                async with asyncio.timeout(10):
                    await ends[0].read(1)
        relay.refuse()
        await asyncio.sleep(0.05)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", relay.port)
        relay.restore()
        await asyncio.sleep(0.05)
        async with through(relay) as ends:
            await _echo(ends, b"after")


def test_losses_come_late_in_order_and_as_often_as_asked() -> None:
    weather = Weather(delay_s=0.15, loss=0.1)
    path, sent = Path(random.Random(3)), [float(second) * 10 for second in range(4000)]
    arrivals = [path.due(now, 100, 0, weather) for now in sent]
    assert arrivals == sorted(arrivals)
    late = [arrived - now for arrived, now in zip(arrivals, sent, strict=True)]
    clean = sum(each < 0.17 for each in late) / len(late)
    once = sum(0.6 < each < 0.7 for each in late) / len(late)
    assert 0.88 < clean < 0.92
    assert 0.08 < once < 0.10
    assert max(late) > 1.4  # lost twice and more


def test_bulk_under_loss_is_as_slow_as_tcp_would_be() -> None:
    weather = Weather(delay_s=0.15, loss=0.1)
    assert 15_000 < weather.goodput < 20_000
    path = Path(random.Random(3))
    last = [path.due(0.0, SEGMENT, 100_000, weather) for _ in range(1000)][-1]
    assert last >= 1000 * SEGMENT / weather.goodput
    assert CLEAR.goodput == float("inf")


def test_beside_other_processes_it_runs_in_a_thread() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        with (
            relaying(server.getsockname()[1]) as relay,
            socket.create_connection(("127.0.0.1", relay.port), timeout=5) as near,
        ):
            far, _address = server.accept()
            with far:
                near.sendall(b"hello")
                far.settimeout(5)
                assert far.recv(5) == b"hello"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", relay.port), timeout=5)
