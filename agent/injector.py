"""What is wrong with the injector, beyond a restart of the agent; and what its console shows.

The portal keeps a condition from the event that raised it to the one that cleared it. A driver that
starts anew may no longer know of a condition that was raised before: the agent does, and clears it
once the driver has had time to look (R-MNT-5).
"""

import sqlite3
from datetime import UTC, datetime
from typing import Any

from agent.control import Args
from agent.drivers import DriverEvent
from agent.runtime import Agent
from agent.wire.catalogue import EVENT_PRIORITY, EventCode, EventPhase
from agent.wire.messages import Event

SETTLE_S = 5.0  # for a driver to find out what is wrong after a start
EVENTS_SHOWN = 20

_Key = tuple[int, str]  # code, syringe or ""


def install(agent: Agent) -> None:
    """Plug into an agent."""
    conditions = _Conditions(agent)
    agent.on_tick(conditions.tick)
    agent.control.register("console-view", lambda args: view(agent, args))


class _Conditions:
    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._settled_at = agent.clock.now() + SETTLE_S
        self._kept: set[_Key] | None = None  # on disk; None: not compared yet
        self._comparing = False

    def tick(self, now: float) -> None:
        current = {_key(event) for event in self._agent.driver.conditions()}
        if self._kept is None:
            if now >= self._settled_at and not self._comparing:
                self._comparing = True
                self._agent.spawn(self._compare(), name="conditions")
        elif current != self._kept:
            self._kept = current
            self._agent.store.write(lambda db: _replace(db, current))

    async def _compare(self) -> None:
        """Clear what an earlier start raised and this one does not know."""
        earlier = await self._agent.store.write(_read)
        current = {_key(event) for event in self._agent.driver.conditions()}
        for code, syringe in sorted(earlier - current):
            known = EventCode(code)
            self._agent.emit(
                Event,
                code=known,
                priority=EVENT_PRIORITY[known],
                phase=EventPhase.CLEARED,
                syringe=syringe or None,
            )
        await self._agent.store.write(lambda db: _replace(db, current))
        self._kept = current


def _key(event: DriverEvent) -> _Key:
    return event.code.value, event.syringe or ""


def _read(connection: sqlite3.Connection) -> set[_Key]:
    _create(connection)
    return set(connection.execute("SELECT code, syringe FROM condition"))


def _replace(connection: sqlite3.Connection, current: set[_Key]) -> None:
    _create(connection)
    connection.execute("DELETE FROM condition")
    connection.executemany("INSERT INTO condition VALUES (?, ?)", sorted(current))


def _create(connection: sqlite3.Connection) -> None:
    connection.execute(
        "CREATE TABLE IF NOT EXISTS condition (code INTEGER NOT NULL, syringe TEXT NOT NULL,"
        " PRIMARY KEY (code, syringe)) WITHOUT ROWID"
    )


def view(agent: Agent, _args: Args) -> dict[str, Any]:
    """The injector as its own console and status page show it. Times are ISO 8601, UTC."""
    driver, now_s, now_ms = agent.driver, agent.clock.now(), agent.clock.wall_ms()
    events = driver.history(1).events[-EVENTS_SHOWN:]
    return {
        "serial": agent.identity.provision.serial,
        "product_line": driver.product_line.value,
        "software_version": driver.software_version,
        "state": driver.state.value,
        "online": agent.online,
        "conditions": [_shown(event) for event in driver.conditions()],
        "faults": driver.faults(),
        "values": {metric.value: value for metric, value in driver.values().items()},
        "events": [
            {
                "at": _iso(now_ms - (now_s - entry.at_s) * 1000),
                "phase": entry.event.phase.value,
                **_shown(entry.event),
            }
            for entry in events
        ],
    }


def _shown(event: DriverEvent) -> dict[str, Any]:
    return {
        "code": event.code.value,
        "name": event.code.name.lower().replace("_", " "),
        "priority": event.priority.value,
        "syringe": event.syringe,
        "value": event.value,
    }


def _iso(ms: float) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds")
