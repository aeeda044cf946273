"""One connection through the whole path, whose links break again and again (R-ACC-5, R-CON-5).

The processes of life: portal, agent, `patency forward`, a service; a relay on each side of the
portal.
"""

import contextlib
import random
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.streams import free_port, line, process, sealed
from tests.relay import Relay, relaying

SIZE = 8 * 1024 * 1024
CUTS = 2


@pytest.fixture
def path(tmp_path: Path) -> Iterator[tuple[int, list[Relay]]]:
    """The local port of `patency forward`, and the relays: to the gate, to the web server."""
    relays: list[Relay] = []
    with contextlib.ExitStack() as stack:
        service = free_port()
        serving = process(sys.executable, "-m", "tests.bench._stream_service", service)
        line(stack.enter_context(serving))

        def between(port: int) -> int:
            relays.append(stack.enter_context(relaying(port)))
            return relays[-1].port

        yield stack.enter_context(sealed(tmp_path, service, between)).port, relays


def test_a_connection_outlives_every_link(path: tuple[int, list[Relay]]) -> None:
    port, relays = path
    data = random.Random(1).randbytes(SIZE)
    got = bytearray()
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(b"echo\n")
        sender = threading.Thread(target=connection.sendall, args=(data,))
        sender.start()
        cuts = 0
        while len(got) < SIZE:
            got += connection.recv(65536)
            if cuts < CUTS and len(got) > (cuts + 1) * SIZE // (CUTS + 1):
                relays[cuts % 2].cut()
                cuts += 1
        sender.join()
        assert cuts == CUTS
        assert bytes(got) == data
        for relay in relays:  # both at once, with nothing under way: a shell that waits for a key
            relay.refuse()
        connection.sendall(b"typed meanwhile")
        time.sleep(1)
        for relay in relays:
            relay.restore()
        answer = b""
        while len(answer) < len(b"typed meanwhile"):
            answer += connection.recv(100)
        assert answer == b"typed meanwhile"
    assert all(relay.opened > 2 for relay in relays)
