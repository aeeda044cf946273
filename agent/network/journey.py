"""One attempt on one route: name, TCP, proxy, TLS, websocket. Blocking: run it in a thread.

Both the agent at work and the doctor travel this way: the doctor meets what the agent meets. An
attempt that goes astray raises `Astray` with what was observed; `findings.classify` says what it
means. Trust is the same whatever goes wrong: `examine` looks at the certificate that was refused,
over a connection of its own on which not a byte but the handshake is sent, and closes it (R-CON-6).
"""

import contextlib
import errno
import logging
import re
import socket
import ssl
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from cryptography import x509

from agent.network import connect, websocket
from agent.network.findings import Failure, Observation
from agent.network.route import Carrier, Route, Stage
from agent.network.websocket import UpgradeRefused, WebSocket
from agent.wire import carrier

NOT_SENT = 32 * 1024  # bytes the kernel may hold unsent
EXAMINE_S = 3.0
AS_ANYBODY = [carrier.ALPN_HTTP]  # no device: the server asks for no certificate
MAX_PAGE = 4096
_SHOWN = 80  # characters of a name that came from the network

# Python names it from 3.12 on; 25 is Linux's number.
_TCP_NOTSENT_LOWAT: int | None = getattr(
    socket, "TCP_NOTSENT_LOWAT", 25 if sys.platform == "linux" else None
)
_NO_ROUTE = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL})
_LOCATION = re.compile(rb"^location:\s*https?://([A-Za-z0-9.:-]+)", re.IGNORECASE | re.MULTILINE)

Ready = ssl.SSLSocket | WebSocket
Resolver = Callable[..., list[Any]]

log = logging.getLogger(__name__)


class Astray(Exception):
    """The attempt came to nothing. The message is for a log and holds no name of this network."""

    def __init__(self, observation: Observation) -> None:
        super().__init__(f"{observation.stage.name.lower()}: {observation.failure}")
        self.observation = observation


@dataclass(frozen=True, slots=True)
class Step:
    stage: Stage
    took_s: float


class Journey:
    """`context` verifies the server; its ALPN is set here, to the carrier's unless `alpn` says
    otherwise. Times in seconds."""

    def __init__(
        self,
        route: Route,
        context: ssl.SSLContext,
        timeout_s: float,
        *,
        alpn: list[str] | None = None,
        wall: Callable[[], float] = time.time,
        resolve: Resolver = socket.getaddrinfo,
    ) -> None:
        self.stage = Stage.NAME
        self.steps: list[Step] = []  # those that succeeded
        self._route = route
        self._context = context
        self._alpn = alpn or route.carrier.alpn
        self._deadline = time.monotonic() + timeout_s
        self._wall = wall
        self._resolve = resolve
        self._socket: socket.socket | None = None
        self._abandoned = False

    def abandon(self) -> None:
        """From another thread: nobody waits any more; wake this one so that it ends."""
        self._abandoned = True
        sock = self._socket
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                log.debug("the socket was closed already")

    def travel(self) -> Ready:
        """What MQTT can be spoken over. Raises Astray."""
        self._context.set_alpn_protocols(self._alpn)
        tls = self._secure(self._tunnel(self._connect(self._addresses())))
        if self._route.carrier is Carrier.MQTT:
            return tls
        return self._upgrade(tls)

    def examine(self, observation: Observation) -> Observation:
        """`observation` of a refused certificate, with whose it was."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # for looking: nothing is said on this connection
        context.set_alpn_protocols(self._alpn)
        look = self._again(context)
        try:
            with look._secure(look._tunnel(look._connect(look._addresses()))) as tls:
                shown = tls.getpeercert(binary_form=True)
            certificate = x509.load_der_x509_certificate(shown or b"")
        except (Astray, OSError, ValueError):
            return observation
        return replace(
            observation,
            issuer=_shown(_issuer_of(certificate)),
            subject=_shown(certificate.subject.rfc4514_string()),
            not_before=certificate.not_valid_before_utc.timestamp(),
            not_after=certificate.not_valid_after_utc.timestamp(),
        )

    def _page(self) -> bytes:
        """The start of what answers a ClientHello there, in case it is a web page."""
        hello, none = ssl.MemoryBIO(), ssl.MemoryBIO()
        with contextlib.suppress(ssl.SSLWantReadError):
            self._context.wrap_bio(
                none, hello, server_hostname=self._route.server.host
            ).do_handshake()
        look = self._again(self._context)
        try:
            with look._tunnel(look._connect(look._addresses())) as sock:
                sock.settimeout(look._left())
                sock.sendall(hello.read())
                return sock.recv(MAX_PAGE)
        except (Astray, OSError):
            return b""

    def _again(self, context: ssl.SSLContext) -> "Journey":
        """For a closer look: the same way, briefly."""
        return Journey(
            self._route,
            context,
            EXAMINE_S,
            alpn=self._alpn,
            wall=self._wall,
            resolve=self._resolve,
        )

    # --- the stages ------------------------------------------------------------------------------

    def _addresses(self) -> list[Any]:
        self.stage, began = Stage.NAME, time.monotonic()
        host, port = self._route.first_hop
        try:
            found = self._resolve(host, port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            known = error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", None))
            failure = Failure.UNKNOWN if known else Failure.UNANSWERED
            raise self._astray(failure, detail=error.strerror) from error
        except (OSError, UnicodeError) as error:
            raise self._astray(Failure.UNANSWERED, detail=str(error)) from error
        if not found:
            raise self._astray(Failure.UNKNOWN)
        self._done(began)
        return found

    def _connect(self, addresses: list[Any]) -> socket.socket:
        self.stage, began = Stage.TCP, time.monotonic()
        astray = self._astray(Failure.TIMEOUT)
        for number, (family, kind, protocol, _name, address) in enumerate(addresses):
            try:
                sock = socket.socket(family, kind, protocol)
            except OSError as error:  # an address family that this system has not
                astray = self._astray(Failure.NO_ROUTE, detail=error.strerror or "")
                continue
            self._socket = sock
            try:
                sock.settimeout(self._left() / (len(addresses) - number))
                sock.connect(address)
                _tune(sock)
            except OSError as error:
                sock.close()
                astray = self._astray(_tcp_failure(error), detail=error.strerror or "")
                continue
            self._done(began)
            return sock
        raise astray

    def _tunnel(self, sock: socket.socket) -> socket.socket:
        proxy = self._route.proxy
        if proxy is None:
            return sock
        self.stage, began = Stage.PROXY, time.monotonic()
        server = self._route.server
        try:
            sock.settimeout(self._left())
            sock.sendall(connect.request(server.host, server.port, proxy.user, proxy.password))
            answer = self._answer(sock)
            if not answer.open:
                raise self._astray(
                    Failure.STATUS,
                    status=answer.status,
                    schemes=answer.schemes,
                    credentials=proxy.user is not None,
                )
        except connect.BadAnswer as error:
            sock.close()
            raise self._astray(Failure.PROTOCOL, detail=str(error)) from error
        except OSError as error:
            sock.close()
            raise self._astray(_cut_or_late(error), detail=error.strerror or "") from error
        except BaseException:
            sock.close()
            raise
        self._done(began)
        return sock

    def _answer(self, sock: socket.socket) -> connect.Answer:
        reader = connect.Reader()
        while True:
            sock.settimeout(self._left())
            chunk = sock.recv(4096)
            if not chunk:
                raise ConnectionResetError(errno.ECONNRESET, "closed without an answer")
            answer = reader.feed(chunk)
            if answer is not None:
                return answer

    def _secure(self, sock: socket.socket) -> ssl.SSLSocket:
        self.stage, began = Stage.TLS, time.monotonic()
        try:
            tls = self._context.wrap_socket(
                sock, server_hostname=self._route.server.host, do_handshake_on_connect=False
            )
        except BaseException as error:
            sock.close()
            if isinstance(error, OSError):
                raise self._astray(Failure.CUT) from error
            raise
        self._socket = tls
        try:
            tls.settimeout(self._left())
            tls.do_handshake()
            self._left()
        except OSError as error:
            tls.close()
            raise self._broken_handshake(error) from error
        except BaseException:
            tls.close()
            raise
        self._done(began)
        return tls

    def _upgrade(self, tls: ssl.SSLSocket) -> WebSocket:
        self.stage, began = Stage.UPGRADE, time.monotonic()
        server = self._route.server
        try:
            tls.settimeout(self._left())
            ready = websocket.opening(tls, server.host, server.port)
            self._left()
        except UpgradeRefused as error:
            tls.close()
            failure = Failure.STATUS if error.status else Failure.PROTOCOL
            raise self._astray(failure, status=error.status) from error
        except OSError as error:
            tls.close()
            failure, alert = tls_failure(error)
            raise self._astray(failure, alert=alert, detail=error.strerror or "") from error
        self._done(began)
        return ready

    # --- inside ----------------------------------------------------------------------------------

    def _broken_handshake(self, error: OSError) -> Astray:
        if isinstance(error, ssl.SSLCertVerificationError):
            refused = self._astray(
                Failure.CERTIFICATE,
                verify_code=error.verify_code,
                detail=error.verify_message,
                now=self._wall(),
            )
            return Astray(self.examine(refused.observation))
        failure, alert = tls_failure(error)
        page = self._page() if failure is Failure.PROTOCOL else b""
        if page.startswith(b"HTTP/"):
            found = _LOCATION.search(page)
            return self._astray(Failure.ANSWER, location=found[1].decode() if found else "HTTP")
        detail = getattr(error, "reason", None) or error.strerror or ""
        return self._astray(failure, alert=alert, detail=str(detail))

    def _astray(self, failure: Failure, **seen: Any) -> Astray:
        route = self._route
        return Astray(
            Observation(
                stage=self.stage,
                failure=failure,
                server=str(route.server),
                proxy=str(route.proxy or ""),
                carrier=route.carrier,
                **seen,
            )
        )

    def _done(self, began: float) -> None:
        self.steps.append(Step(self.stage, time.monotonic() - began))

    def _left(self) -> float:
        """Raises TimeoutError."""
        left = self._deadline - time.monotonic()
        if left <= 0 or self._abandoned:
            raise TimeoutError
        return left


def tls_failure(error: BaseException) -> tuple[Failure, str]:
    """How TLS ended, and the other side's alert if there was one."""
    reason = str(getattr(error, "reason", None) or "")
    if "ALERT" in reason:
        return Failure.ALERT, reason
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return Failure.CUT, ""
    if isinstance(error, ssl.SSLError) and not isinstance(error, TimeoutError):
        return (Failure.CUT if "EOF" in reason else Failure.PROTOCOL), ""
    return _cut_or_late(error), ""


def _cut_or_late(error: BaseException) -> Failure:
    return Failure.TIMEOUT if isinstance(error, TimeoutError) else Failure.CUT


def _tcp_failure(error: OSError) -> Failure:
    if isinstance(error, TimeoutError):
        return Failure.TIMEOUT
    return Failure.NO_ROUTE if error.errno in _NO_ROUTE else Failure.REFUSED


def _issuer_of(certificate: x509.Certificate) -> str:
    """The name a person would know the authority by."""
    for kind in (x509.NameOID.COMMON_NAME, x509.NameOID.ORGANIZATION_NAME):
        names = certificate.issuer.get_attributes_for_oid(kind)
        if names:
            return str(names[0].value)
    return certificate.issuer.rfc4514_string()


def _shown(text: str) -> str:
    """What came from the network, harmless on a screen and short."""
    return "".join(c if c.isprintable() else "?" for c in text)[:_SHOWN]


def _tune(sock: socket.socket) -> None:
    """Send small packets at once, and keep unsent bytes where a message can overtake them."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if _TCP_NOTSENT_LOWAT is not None:
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, NOT_SENT)
