"""Name, TCP and TLS of one connection attempt, in a thread: all three can block for long."""

import asyncio
import contextvars
import logging
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable

from agent.i18n import _
from agent.identity import Server

NOT_SENT = 32 * 1024  # bytes the kernel may hold unsent

# Python names it from 3.12 on; 25 is Linux's number.
_TCP_NOTSENT_LOWAT: int | None = getattr(
    socket, "TCP_NOTSENT_LOWAT", 25 if sys.platform == "linux" else None
)

log = logging.getLogger(__name__)


class Dial:
    """One attempt in a thread: name, TCP, TLS. Reports in the loop, once."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        server: Server,
        context: ssl.SSLContext,
        timeout_s: float,
        done: Callable[["Dial", ssl.SSLSocket | None, str], None],
    ) -> None:
        self.server = server
        self.abandoned = False
        self._loop = loop
        self._context = context
        self._deadline = time.monotonic() + timeout_s
        self._done = done
        self._socket: socket.socket | None = None
        self._reason = ""
        # A daemon: a name server that does not answer must not keep the process from ending.
        self._thread = threading.Thread(
            target=contextvars.copy_context().run,  # reasons are in the agent's language
            args=(self._run,),
            name=f"dial {server}",
            daemon=True,
        )
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def abandon(self) -> None:
        """Nobody waits any more; wake the thread so that it ends."""
        self.abandoned = True
        sock = self._socket
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                log.debug("the dialled socket was closed already")

    def _run(self) -> None:
        ready, reason = None, ""
        try:
            ready = self._secure(self._connect())
        except ssl.SSLCertVerificationError as error:
            reason = _("the server's certificate is not trusted: {error}").format(
                error=error.verify_message
            )
        except ssl.SSLError as error:
            reason = _("TLS failed: {error}").format(error=error.reason or error)
        except socket.gaierror as error:
            reason = _("the name {host} is not known: {error}").format(
                host=self.server.host, error=error.strerror
            )
        except OSError as error:
            reason = _("no connection to {server}: {error}").format(
                server=self.server, error=error.strerror or error
            )
        try:
            self._loop.call_soon_threadsafe(self._done, self, ready, reason)
        except RuntimeError:  # the loop has closed
            if ready is not None:
                ready.close()

    def _left(self) -> float:
        """Raises TimeoutError."""
        left = self._deadline - time.monotonic()
        if left <= 0 or self.abandoned:
            raise TimeoutError(_("time is up"))
        return left

    def _connect(self) -> socket.socket:
        error: OSError = OSError(_("the name has no address"))
        for family, kind, protocol, _name, address in socket.getaddrinfo(
            self.server.host, self.server.port, type=socket.SOCK_STREAM
        ):
            sock = socket.socket(family, kind, protocol)
            self._socket = sock
            try:
                sock.settimeout(self._left())
                sock.connect(address)
                _tune(sock)
            except OSError as failure:
                error = failure
                sock.close()
                continue
            return sock
        raise error

    def _secure(self, sock: socket.socket) -> ssl.SSLSocket:
        try:
            tls = self._context.wrap_socket(
                sock, server_hostname=self.server.host, do_handshake_on_connect=False
            )
        except BaseException:
            sock.close()
            raise
        self._socket = tls
        try:
            tls.settimeout(self._left())
            tls.do_handshake()
            self._left()
        except BaseException:
            tls.close()
            raise
        return tls


def _tune(sock: socket.socket) -> None:
    """Send small packets at once, and keep unsent bytes where a message can overtake them."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if _TCP_NOTSENT_LOWAT is not None:
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, NOT_SENT)
