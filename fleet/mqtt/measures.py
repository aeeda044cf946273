"""What the portal's process shows of its gate and of its links, besides its own counts."""

from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from broker.measures import GateCollector, gauge
from broker.scrape import listening
from broker.server import Gate
from fleet.core.addresses import Address
from fleet.mqtt.links import Links


class LinksCollector(Collector):
    """By access server: their names are published anyway (the allow-list)."""

    def __init__(self, links: Links) -> None:
        self._links = links

    def collect(self) -> Iterable[Metric]:
        remotes = self._links.remotes
        health = {name: remote.health() for name, remote in remotes.items()}
        yield gauge(
            "patency_link_up", "1 while the access server is linked", "server",
            {name: each.up for name, each in health.items()},
        )  # fmt: skip
        yield gauge(
            "patency_link_devices", "Devices on line at the access server", "server",
            {name: each.devices for name, each in health.items()},
        )  # fmt: skip
        yield gauge(
            "patency_link_undecided_messages",
            "Messages that came over the link and await a decision", "server",
            {name: remote.undecided for name, remote in remotes.items()},
        )  # fmt: skip
        links = CounterMetricFamily("patency_link_links", "Links that came up", labels=["server"])
        failures = CounterMetricFamily(
            "patency_link_failures",
            "Attempts that failed and links that broke, by trouble",
            labels=["server", "trouble"],
        )
        for name, remote in remotes.items():
            links.add_metric([name], remote.links)
            for trouble, count in list(remote.failures.items()):
                failures.add_metric([name, trouble.value], count)
        yield links
        yield failures


@asynccontextmanager
async def measured(gate: Gate | None, links: Links, address: Address | None) -> AsyncIterator[None]:
    """Within the block, the process's metrics hold them, and are read at `address` as well.

    Raises OSError when the address is taken."""
    collectors: list[Collector] = [LinksCollector(links)]
    if gate is not None:
        collectors.append(GateCollector(gate))
    async with AsyncExitStack() as stack:
        for collector in collectors:
            REGISTRY.register(collector)
            stack.callback(REGISTRY.unregister, collector)
        if address is not None:
            await stack.enter_async_context(listening(address.host, address.port, REGISTRY))
        yield
