"""The list of access servers: offered, tried, adopted; and an agent that goes where it says.

Requirements: R-CON-5, R-CON-8.
"""

import json
from pathlib import Path

import pytest

from agent.effects import Phase
from agent.identity import Server
from agent.servers import ADOPTED, OFFERED, ServerList, load_offered, save
from agent.wire.messages import AccessServer, Event, Hello, Servers
from tests.agent.support import enrolled, portal
from tests.agent.test_core import Bench
from tests.agent.test_runtime import AUTHORITY, Running

A, B, C = (Server(host=f"{name}.example.org", port=443) for name in "abc")


# --- the list -----------------------------------------------------------------------------------


def test_a_new_list_is_tried_first_and_the_old_one_stays_behind_it() -> None:
    servers = ServerList((A, B))
    assert servers.offer((C, A))
    assert servers.dial == (C, A, B)
    assert not servers.offer((C, A))  # sent again at every hello
    assert not servers.worked(B)  # the portal has answered at a server of the old one
    assert servers.dial == (C, A, B)
    assert servers.worked(A)
    assert servers.dial == (C, A)
    assert not servers.worked(A)


def test_one_that_is_taken_back_before_it_worked() -> None:
    servers = ServerList((A, B))
    assert servers.offer((C,))
    assert servers.offer((A, B))
    assert servers.dial == (A, B)
    assert servers.offered == ()


def test_kept_on_disk(tmp_path: Path) -> None:
    save(tmp_path, (A, B), (C,))
    assert load_offered(tmp_path) == (C,)
    assert [each["host"] for each in json.loads((tmp_path / ADOPTED).read_text())] == [
        A.host,
        B.host,
    ]
    save(tmp_path, (C,), ())
    assert load_offered(tmp_path) == ()
    assert not (tmp_path / OFFERED).exists()


@pytest.mark.parametrize("content", [b"?", b'[{"host":"a b","port":1}]', b"\xff"])
def test_an_offer_that_cannot_be_read_is_forgotten(tmp_path: Path, content: bytes) -> None:
    (tmp_path / OFFERED).write_bytes(content)
    assert load_offered(tmp_path) == ()


# --- the core -------------------------------------------------------------------------------------


def test_another_list_moves_nobody_and_counts_from_the_next_failure_on() -> None:
    bench = Bench(servers=1)
    bench.online()
    bench.core.use(3, 2)  # we are on the last of three now
    assert bench.core.phase is Phase.ONLINE
    bench.core.lost(bench.now, "gone")
    assert bench.core.server == 0


def test_with_another_server_to_go_to_a_hello_nobody_decides_on_is_a_reason_to_go() -> None:
    bench = Bench(servers=2, elsewhere=100, silence=9999, ping=9999)
    bench.greeting()
    bench.now += 99
    bench.core.tick(bench.now)
    assert bench.core.phase is Phase.GREETING
    bench.now += 102
    bench.core.tick(bench.now)
    assert (bench.core.phase, bench.core.server) == (Phase.WAITING, 1)


def test_with_one_server_it_waits() -> None:
    bench = Bench(servers=1, elsewhere=100, silence=9999, ping=9999)
    bench.greeting()
    bench.now += 1000
    bench.core.tick(bench.now)
    assert bench.core.phase is Phase.GREETING


def test_a_hello_that_was_decided_does_not_make_it_go() -> None:
    bench = Bench(servers=2, elsewhere=100, silence=9999, ping=9999)
    bench.greeting()
    bench.core.greeted(bench.now)
    bench.now += 6
    bench.core.tick(bench.now)
    assert bench.core.phase is Phase.ONLINE
    bench.now += 500  # nothing on its way: nothing to wait for
    bench.core.tick(bench.now)
    assert bench.core.phase is Phase.ONLINE


# --- whole ----------------------------------------------------------------------------------------


async def test_an_agent_goes_on_to_the_next_and_keeps_its_list(tmp_path: Path) -> None:
    """R-CON-5: told of a second server, it goes there when the first one dies, loses nothing, and
    after a restart begins with the new list."""
    async with portal(tmp_path / "west", AUTHORITY) as west:
        async with portal(tmp_path / "east", AUTHORITY) as east:
            west.seen, west.decided = east.seen, east.decided  # one portal behind both
            state = enrolled(tmp_path / "state", AUTHORITY, east.gate.port)
            both = [east.gate.port, west.gate.port]
            async with Running(state) as agent:
                agent.event()
                await east.until(lambda: east.of(Event))
                names = [AccessServer(host="localhost", port=port) for port in both]
                east.send(Servers(servers=names))
                await east.until(lambda: [s["port"] for s in _kept(state, ADOPTED)] == both)
                assert not (state / OFFERED).exists()  # it is connected to one of them
                await east.gate.stop()
                agent.event()
                agent.agent.look()
                await west.until(lambda: len(west.of(Event)) == 2)
                assert agent.agent.status()["access_server"] == f"localhost:{both[1]}"
        async with Running(state) as agent:
            await west.until(lambda: west.connects == 2)  # the first of the list is still dead
            await west.until(lambda: agent.agent.online)


async def test_a_list_of_servers_that_are_not_there_cuts_nobody_off(tmp_path: Path) -> None:
    """What a portal says by mistake, or in an attacker's hands, is tried and not believed."""
    async with portal(tmp_path / "gate", AUTHORITY) as served:
        state = enrolled(tmp_path / "state", AUTHORITY, served.gate.port)
        async with Running(state) as agent:
            await served.until(lambda: served.of(Hello))
            served.send(Servers(servers=[AccessServer(host="127.0.0.1", port=1)]))
            await served.until((state / OFFERED).exists)
            served.gate.kick(agent.agent.device)
            await served.until(lambda: served.connects == 2, 20)
        async with Running(state):
            await served.until(lambda: served.connects == 3, 20)


def _kept(state: Path, name: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads((state / name).read_text())
    return found


async def test_a_list_without_the_present_server_is_adopted_once_it_has_worked(
    tmp_path: Path,
) -> None:
    async with portal(tmp_path / "west", AUTHORITY) as west, portal(
        tmp_path / "east", AUTHORITY
    ) as east:  # fmt: skip
        state = enrolled(tmp_path / "state", AUTHORITY, east.gate.port)
        async with Running(state):
            await east.until(lambda: east.of(Hello))
            east.send(Servers(servers=[AccessServer(host="localhost", port=west.gate.port)]))
            await east.until((state / OFFERED).exists)
            assert east.gate.connections  # nobody is moved
            await east.gate.stop()
            await west.until(lambda: west.of(Hello))
            await west.until(lambda: not (state / OFFERED).exists())
            assert [each["port"] for each in _kept(state, ADOPTED)] == [west.gate.port]
