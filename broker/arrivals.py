"""From `accept` to a protocol: peek at the ClientHello, choose the context, shake hands.

One port serves devices (ALPN `mqtt`, or `patency-device` for a websocket) and browsers (anything
else). Every stage is bounded in number
and time: sockets that say nothing are dropped after a few seconds, handshakes wait for a place in
order, and one that stalls gives its place up when others wait. Nothing that a stranger sends ends
the accept loop.
"""

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Any

from agent.wire import carrier
from broker import hello, tls
from broker.errors import PeerError, Reason
from broker.gate import Connection
from broker.house import House
from broker.websocket import WebSocket

log = logging.getLogger(__name__)

_PEEK_AGAIN_S = 0.01  # first wait for the rest of a ClientHello; doubles
_PEEK_AGAIN_MOST_S = 0.2
_ACCEPT_AGAIN_S = 0.2  # after running out of file descriptors or memory
_SWEEP_S = 0.5
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_USER_TIMEOUT_MS = 30_000  # unacknowledged bytes for so long: the link is dead


class _Carrier:
    """One way for a device to come: the sign in its ClientHello, and what serves it."""

    __slots__ = ("context", "protocol", "sign")

    def __init__(
        self,
        sign: str,
        alpn: str,
        protocol: Callable[[House, tuple[str, int], float], asyncio.BufferedProtocol],
        house: House,
    ) -> None:
        self.sign = sign.encode()
        self.protocol = protocol
        self.context = tls.device_context(house.options, alpn)


class Arrivals:
    """The accept loop of one listening socket."""

    def __init__(
        self,
        listener: socket.socket,
        house: House,
        web_factory: Callable[[], asyncio.Protocol] | None,
    ) -> None:
        self._listener = listener
        self._house = house
        self._limits = house.options.limits
        self._web_factory = web_factory
        self._carriers = (
            _Carrier(carrier.ALPN_MQTT, carrier.ALPN_MQTT, Connection, house),
            _Carrier(carrier.ALPN_DEVICE, carrier.ALPN_HTTP, WebSocket, house),
        )
        self._web_context = tls.web_context(house.options)
        self._arrivals = asyncio.Semaphore(self._limits.arrivals)
        self._places = asyncio.Semaphore(self._limits.handshakes)
        self._shaking: dict[asyncio.Task[Any], float] = {}  # oldest first: since when
        self._crowded: set[asyncio.Task[Any]] = set()

    @property
    def handshakes(self) -> int:
        return len(self._shaking)

    async def run(self) -> None:
        """Accept until cancelled; sockets that have no protocol yet end with it."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._sweep())
            await self._accept(group)

    async def _accept(self, group: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._arrivals.acquire()
            try:
                sock, address = await loop.sock_accept(self._listener)
            except OSError as error:
                self._arrivals.release()
                if error.errno in _EXHAUSTED:
                    log.error("cannot accept a connection: %s", error)
                    await asyncio.sleep(_ACCEPT_AGAIN_S)
                continue
            self._house.counters.accepted += 1
            group.create_task(self._arrive(sock, (address[0], address[1])))

    async def _sweep(self) -> None:
        """Take their place from handshakes that stall while others wait."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_SWEEP_S)
            if not self._places.locked():
                continue
            late = loop.time() - self._limits.handshake_fair_s
            for task in [task for task, since in self._shaking.items() if since < late]:
                self._crowded.add(task)
                task.cancel()

    async def _arrive(self, sock: socket.socket, address: tuple[str, int]) -> None:
        """One socket, until a protocol has it."""
        peer = f"{address[0]}:{address[1]}"
        task = asyncio.current_task()
        try:
            sock.setblocking(False)
            _tune(sock, self._limits.notsent_bytes)
            await self._admit(sock, address)
        except PeerError as error:
            sock.close()
            self._house.refuse(peer, None, error.reason)
        except OSError:
            sock.close()  # it went away by itself
        except asyncio.CancelledError:
            sock.close()
            if task in self._crowded:
                self._house.refuse(peer, None, Reason.CROWDED)
            raise
        except Exception:
            sock.close()
            log.exception("arrival from %s", peer)
        finally:
            if task is not None:
                self._crowded.discard(task)
            self._arrivals.release()

    async def _admit(self, sock: socket.socket, address: tuple[str, int]) -> None:
        loop = asyncio.get_running_loop()
        connect_by = loop.time() + self._limits.connect_s
        try:
            async with asyncio.timeout(self._limits.hello_s):
                offered = await _peek(sock)
        except (hello.NotTLS, TimeoutError):
            raise PeerError(Reason.NOT_TLS) from None
        device = next((each for each in self._carriers if each.sign in offered.alpn), None)
        if device is None and self._web_factory is None:
            raise PeerError(Reason.HANDSHAKE)  # nobody here speaks anything but MQTT
        waited_from = loop.time()
        try:
            async with asyncio.timeout(self._limits.place_s):
                await self._places.acquire()
        except TimeoutError:
            raise PeerError(Reason.CROWDED) from None
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  a coroutine runs in a task
        now = loop.time()
        self._shaking[task] = now
        connect_by += now - waited_from
        try:
            if device is not None:
                await self._shake_device(sock, device, address, connect_by)
            elif self._web_factory is not None:
                await self._shake_web(sock, connect_by - now, self._web_factory)
        finally:
            del self._shaking[task]
            self._places.release()

    async def _shake_device(
        self, sock: socket.socket, device: "_Carrier", address: tuple[str, int], connect_by: float
    ) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(
                lambda: device.protocol(self._house, address, connect_by),
                sock,
                ssl=device.context,
                ssl_handshake_timeout=max(connect_by - loop.time(), 0.1),
                ssl_shutdown_timeout=self._limits.shutdown_s,
            )
        except (OSError, ssl.CertificateError, EOFError):
            # A TLS 1.3 client believes that it is in; what it gets is an alert.
            raise PeerError(Reason.HANDSHAKE) from None
        self._house.counters.handshakes += 1

    async def _shake_web(
        self, sock: socket.socket, timeout_s: float, factory: Callable[[], asyncio.Protocol]
    ) -> None:
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(
            factory,
            sock,
            ssl=self._web_context,
            ssl_handshake_timeout=max(timeout_s, 0.1),
            ssl_shutdown_timeout=self._limits.shutdown_s,
        )


async def _peek(sock: socket.socket) -> hello.Hello:
    """Read the ClientHello without taking it. Raises: NotTLS; OSError when the peer leaves."""
    pause = _PEEK_AGAIN_S
    while True:
        try:
            data = sock.recv(hello.MAX_HELLO, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            await _readable(sock)
            continue
        if not data:
            raise ConnectionResetError
        found = hello.parse(data)
        if found is not None:
            return found
        # What is there stays readable, so waiting for readability would spin.
        await asyncio.sleep(pause)
        pause = min(pause * 2, _PEEK_AGAIN_MOST_S)


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(sock, wake)
    try:
        await ready
    finally:
        loop.remove_reader(sock)


def _tune(sock: socket.socket, notsent_bytes: int) -> None:
    """Small packets at once, little unsent in the kernel, dead links noticed by the kernel too."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_NOTSENT_LOWAT", notsent_bytes),
        ("TCP_USER_TIMEOUT", _USER_TIMEOUT_MS),
    ):
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
