"""A gate behind a link, both ends in one loop: the gate listens, the portal connects."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from broker.link.line import LinkLimits
from broker.link.remote import RemoteGate, RemoteOptions
from broker.link.uplink import Uplink, UplinkOptions
from broker.link.wire import Certificates
from broker.options import GateOptions, Limits
from broker.server import Gate
from tests.broker.conftest import Recorder
from tests.tls import Files, LinkAuthority

NAME = "east"
QUICK = LinkLimits(again_s=0.05, again_most_s=0.1, ping_s=1.0, silence_s=3.0, connect_s=2.0)


class Linked:
    """`folder` keeps keys and the deny-list: another one on it is the same server, restarted."""

    def __init__(
        self,
        files: Files,
        links: LinkAuthority,
        folder: Path,
        *,
        limits: LinkLimits = QUICK,
        gate_limits: Limits | None = None,
        port: int = 0,
        link_port: int = 0,
        certificates: Certificates | None = None,
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.links, self.limits = folder, links, limits
        certificate, key = links.server(NAME).write(folder, "link")
        self.uplink = Uplink(
            UplinkOptions(
                host="127.0.0.1", port=link_port, certificate=certificate, key=key,
                authority=links.write(folder), state=folder, limits=limits,
                certificates=certificates,
            )
        )  # fmt: skip
        self.gate = Gate(
            GateOptions(
                host="127.0.0.1", port=port, certificate=files.server_chain,
                key=files.server_key, device_ca=files.device_ca,
                limits=gate_limits or Limits(), drained=self.uplink.drained,
            ),
            self.uplink,
        )  # fmt: skip
        self.uplink.attach(self.gate)
        self._running: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        await self.uplink.start()
        await self.gate.start()

    async def stop(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self.gate.stop()
        await self.uplink.stop()

    # --- the portal ----------------------------------------------------------------------------

    def options(self, name: str = NAME) -> RemoteOptions:
        certificate, key = self.links.portal().write(self.folder, "portal")
        return RemoteOptions(
            name=name, host="127.0.0.1", port=self.uplink.port, certificate=certificate, key=key,
            authority=self.folder / "link-ca.pem", limits=self.limits,
        )  # fmt: skip

    def portal(
        self, handler: Recorder, options: RemoteOptions | None = None
    ) -> tuple[RemoteGate, "asyncio.Task[None]"]:
        """A portal that holds a link until its task is cancelled."""
        remote = RemoteGate(options or self.options(), handler, handler.changed.set)
        task = asyncio.create_task(remote.run())
        self._running.append(task)
        return remote, task

    async def linked(self, handler: Recorder) -> RemoteGate:
        """A portal whose link is up."""
        remote, _task = self.portal(handler)
        await handler.until(lambda: remote.health().up)
        return remote

    def cut(self) -> None:
        """The link breaks, as a cable does: without a word."""
        assert self.uplink._line is not None
        self.uplink._line._transport.abort()


async def come_true(condition: Callable[[], bool], wait_s: float = 5.0) -> None:
    """Wait for what nobody reports."""
    async with asyncio.timeout(wait_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def limits(**fields: float) -> LinkLimits:
    return replace(QUICK, **fields)  # type: ignore[arg-type]
