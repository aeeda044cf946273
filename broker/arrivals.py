"""From `accept` to a protocol: peek at the ClientHello, choose the context, shake hands.

One port serves devices (ALPN `mqtt`, or `patency-device` for a websocket) and browsers (anything
else); from our own proxies a PROXY header comes first and says who the peer is. Every stage is
bounded in number and time: sockets that say nothing are dropped after a few seconds, handshakes
wait for a place in order, and one that stalls gives its place up when others wait. Nothing that a
stranger sends ends the accept loop.
"""

import asyncio
import errno
import ipaddress
import logging
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from agent.wire import carrier
from broker import hello, proxy, tls
from broker.errors import PeerError, Reason
from broker.gate import Connection
from broker.house import House
from broker.websocket import WebSocket
from broker.wrapped import Introduced

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


@dataclass(slots=True)
class _Arrival:
    """A socket on its way to a protocol."""

    sock: socket.socket
    address: tuple[str, int]  # of the peer, once our proxy has named it
    introduced: bool = False  # the address is not the socket's own

    @property
    def peer(self) -> str:
        return f"{self.address[0]}:{self.address[1]}"


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
        arrival = _Arrival(sock, address)
        task = asyncio.current_task()
        try:
            sock.setblocking(False)
            _tune(sock, self._limits.notsent_bytes)
            await self._admit(arrival)
        except PeerError as error:
            sock.close()
            self._house.refuse(arrival.peer, None, error.reason)
        except OSError:
            sock.close()  # it went away by itself
        except asyncio.CancelledError:
            sock.close()
            if task in self._crowded:
                self._house.refuse(arrival.peer, None, Reason.CROWDED)
            raise
        except Exception:
            sock.close()
            log.exception("arrival from %s", arrival.peer)
        finally:
            if task is not None:
                self._crowded.discard(task)
            self._arrivals.release()

    async def _admit(self, arrival: "_Arrival") -> None:
        loop = asyncio.get_running_loop()
        connect_by = loop.time() + self._limits.connect_s
        try:
            async with asyncio.timeout(self._limits.hello_s):
                if self._from_proxy(arrival.address[0]):
                    await _introduce(arrival)
                offered = await _peek(arrival.sock, hello.parse, hello.MAX_HELLO)
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
                await self._shake_device(arrival, device, connect_by)
            elif self._web_factory is not None:
                await self._shake_web(arrival, connect_by - now, self._web_factory)
        finally:
            del self._shaking[task]
            self._places.release()

    def _from_proxy(self, host: str) -> bool:
        proxies = self._house.options.proxies
        return bool(proxies) and any(ipaddress.ip_address(host) in each for each in proxies)

    async def _shake_device(
        self, arrival: "_Arrival", device: "_Carrier", connect_by: float
    ) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(
                lambda: device.protocol(self._house, arrival.address, connect_by),
                arrival.sock,
                ssl=device.context,
                ssl_handshake_timeout=max(connect_by - loop.time(), 0.1),
                ssl_shutdown_timeout=self._limits.shutdown_s,
            )
        except (OSError, ssl.CertificateError, EOFError):
            # A TLS 1.3 client believes that it is in, and finds the connection closed: asyncio
            # drops the alert that OpenSSL has ready. Why, the portal tells (agent.network.doubt).
            raise PeerError(Reason.HANDSHAKE) from None
        self._house.counters.handshakes += 1

    async def _shake_web(
        self, arrival: "_Arrival", timeout_s: float, factory: Callable[[], asyncio.Protocol]
    ) -> None:
        def behind() -> asyncio.Protocol:
            return Introduced(factory(), arrival.address)

        await asyncio.get_running_loop().connect_accepted_socket(
            behind if arrival.introduced else factory,
            arrival.sock,
            ssl=self._web_context,
            ssl_handshake_timeout=max(timeout_s, 0.1),
            ssl_shutdown_timeout=self._limits.shutdown_s,
        )


async def _introduce(arrival: _Arrival) -> None:
    """Take the PROXY header off the connection. Raises: PeerError; OSError when the peer leaves."""
    try:
        header = await _peek(arrival.sock, proxy.parse, proxy.MAX_HEADER)
    except proxy.NotProxied as error:
        log.error(
            "%s is one of PATENCY_PROXIES and did not say for whom it connects (%s): switch the"
            " PROXY protocol on there, or take it out of the list",
            arrival.peer,
            error,
        )
        raise PeerError(Reason.PROXY) from None
    arrival.sock.recv(header.length)  # all of it has been seen to be there
    arrival.introduced = header.source is not None
    arrival.address = header.source or arrival.address


Seen = TypeVar("Seen")


async def _peek(sock: socket.socket, parse: Callable[[bytes], Seen | None], most: int) -> Seen:
    """What `parse` makes of the first bytes, none of which are taken.

    Raises: what `parse` raises; OSError when the peer leaves.
    """
    pause = _PEEK_AGAIN_S
    while True:
        try:
            data = sock.recv(most, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            await _readable(sock)
            continue
        if not data:
            raise ConnectionResetError
        found = parse(data)
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
