"""paho-mqtt on the agent's event loop: the shell that carries out what the core decides.

One `Link` serves an agent; each connection is a fresh paho client. Names, TCP and TLS are dealt
with in a thread of their own, because all three can block for long; from there on the socket is
non-blocking and belongs to the loop. paho's own keepalive is not used: the core decides when to
ping and when a link is dead.

Fairness. Messages go into paho's queue at once. A stream frame is pulled from its source only when
that queue is empty, so at most one lies before the next message, and the kernel is told to take
little (TCP_NOTSENT_LOWAT): what is not yet sent can still be overtaken. How much of the streams may
be anywhere between here and the gate is the pacer's to say (agent.wire.pacer); its marks are
PINGREQs, whose answers come in the order of everything that was sent (R-CON-4). The core's own
pings are marks as well. A cap that the site set (agent.network.valve) stands before both: the
outbox's messages wait for it, frames as well, and everything else is only counted.

`Client` uses four private names of paho-mqtt (`_create_socket`, `_sock_close`, `_send_pingreq`,
`_handle_pingresp`); its version is pinned and tests cover each.
"""

import asyncio
import logging
import re
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, LogLevel, MQTTErrorCode

from agent.dial import Dial
from agent.i18n import _
from agent.network import words
from agent.network.findings import Failure, Observation, classify
from agent.network.journey import Ready
from agent.network.route import Route, Stage
from agent.network.valve import Valve
from agent.wire import topics
from agent.wire.messages import MAX_PAYLOAD
from agent.wire.pacer import Pacer, Turn

KEEPALIVE_S = 10  # stated in CONNECT; the gate cuts after 1.5 times this
MAX_PACKET = MAX_PAYLOAD + 1024
READS = 64  # packets before the loop's other work has its turn
FRAMES = 16  # stream frames, likewise

Token = object
Source = Callable[[Turn, int], bytes | None]  # the turn it is, and the most data in a frame

_ALERT = re.compile(r"\[SSL: ([A-Z0-9_]*ALERT[A-Z0-9_]*)\]")

log = logging.getLogger(__name__)


class Events(Protocol):
    """Who is told. Called in the loop; must not block and must not raise."""

    def dialled(self) -> None: ...
    def accepted(self) -> None: ...
    def subscribed(self) -> None: ...
    def lost(self, reason: str, seen: Observation | None = None) -> None: ...
    def heard(self) -> None: ...
    def pong(self) -> None: ...
    def acknowledged(self, token: Token) -> None: ...
    def received(self, topic: str, payload: bytes) -> None: ...


class Client(paho.Client):
    """paho's client over a socket that is already connected, with pings in our hands."""

    def __init__(
        self, device: str, route: Route, ready: Ready, on_pong: Callable[[], None]
    ) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=device,
            clean_session=True,
            reconnect_on_failure=False,
        )
        self.route = route
        self.accepted = False
        self._ready: Any = ready
        self._on_pong = on_pong
        self.trouble = ""  # paho says only in its log what went wrong with the socket
        self.max_inflight_messages_set(0)  # the core's window is the bound

    def _create_socket(self) -> Any:
        return self._ready

    def _handle_pingresp(self) -> MQTTErrorCode:
        self._on_pong()
        return super()._handle_pingresp()

    def on_trouble(self, _client: Any, _data: Any, level: int, text: str) -> None:
        if level == LogLevel.MQTT_LOG_ERR:
            self.trouble = text

    def ping(self) -> None:
        self._send_pingreq()

    def drop(self) -> None:
        self._sock_close()

    @property
    def arriving(self) -> int:
        """Bytes of the packet that is being read."""
        return int(self._in_packet["remaining_length"])

    def seen(self, failure: Failure, detail: str = "") -> Observation:
        """How this connection ends."""
        alert = _ALERT.search(self.trouble)
        return Observation(
            stage=Stage.LINK if self.accepted else Stage.MQTT,
            failure=Failure.ALERT if alert else failure,
            server=str(self.route.server),
            proxy=str(self.route.proxy or ""),
            carrier=self.route.carrier,
            alert=alert[1] if alert else "",
            detail=detail,
        )


class Link:
    """At most one connection. `next_frame` is the source of stream frames."""

    def __init__(
        self, device: str, events: Events, next_frame: Source = lambda turn, most: None
    ) -> None:
        self._device = device
        self._up_stream = topics.up_stream(device)
        self._events = events
        self._next_frame = next_frame
        self._loop = asyncio.get_running_loop()
        self._client: Client | None = None
        self._dialling: Dial | None = None
        self._tokens: dict[int, Token] = {}
        self._streaming = False
        self._pacer = Pacer()
        self._reading = False  # inside paho, which calls back
        self._writing = False
        self._frames_due = False
        self._pings: deque[bool] = deque()  # unanswered, oldest first; true: the core's own
        self._valve = Valve(self._loop, self._send, self.frames_ready)

    # --- what the core asks for ------------------------------------------------------------------

    def dial(self, route: Route, context: ssl.SSLContext, timeout_s: float) -> None:
        """Connect. `dialled`, `accepted` or `lost` follow."""
        self.hang_up()
        if self._dialling is not None and self._dialling.alive:
            # A name server that never answers holds the thread; another would be held as well.
            seen = self._dialling.late()
            self._loop.call_soon(self._events.lost, words.tell(classify(seen)), seen)
            return
        self._dialling = Dial(self._loop, route, context, timeout_s, self._dialled)

    def overdue(self) -> Observation | None:
        """What is known of a connection that is being made and takes too long."""
        if self._client is not None:
            return None if self._client.accepted else self._client.seen(Failure.TIMEOUT)
        return self._dialling.late() if self._dialling is not None else None

    def hang_up(self) -> None:
        """Drop the connection without a word; no event follows."""
        if self._dialling is not None:
            self._dialling.abandon()
        client, self._client = self._client, None
        self._streaming = False
        self._tokens.clear()
        self._valve.clear()
        if client is not None:
            # Later, as this may be called from inside one of paho's callbacks.
            self._loop.call_soon(client.drop)

    async def close(self, timeout_s: float = 1.0) -> None:
        """Say goodbye (DISCONNECT) if there is a connection, then drop it."""
        client, self._client = self._client, None  # no event from here on
        if client is not None and client.is_connected():
            client.disconnect()
            deadline = self._loop.time() + timeout_s
            while client.socket() is not None and self._loop.time() < deadline:
                client.loop_write()
                await asyncio.sleep(0.01)
        if client is not None:
            client.drop()
        self.hang_up()
        await asyncio.sleep(0)  # let a drop that was put off happen

    def subscribe(self, topic_filter: str) -> None:
        if self._client is not None:
            self._client.subscribe(topic_filter, qos=0)

    def publish(
        self, topic: str, payload: bytes, token: Token | None = None, *, may_wait: bool = False
    ) -> None:
        """At QoS 1 with a token, which `acknowledged` gives back; at QoS 0 without.

        With `may_wait` it leaves once the site's cap lets it, behind those that wait already.
        """
        if self._client is None:
            return
        if may_wait:
            self._valve.offer(topic, payload, token)
        else:
            self._send(topic, payload, token)

    def _send(self, topic: str, payload: bytes, token: Token | None) -> None:
        client = self._client
        if client is None:
            return
        info = client.publish(topic, payload, qos=0 if token is None else 1)
        self._valve.spent(len(payload))
        if token is not None:
            self._tokens[info.mid] = token

    def cap(self, rate: int | None) -> None:
        """Send at most so many bytes a second from now on; None lifts the cap."""
        self._valve.set(rate)

    @property
    def spare(self) -> bool:
        """Whether the cap leaves room for what nobody misses."""
        return self._valve.turn is Turn.BULK

    def ping(self) -> None:
        if self._client is not None:
            self._mark(self._client, own=True)

    def _mark(self, client: Client, *, own: bool = False) -> None:
        self._pings.append(own)
        self._pacer.marked(self._loop.time())
        client.ping()

    def stream(self, on: bool) -> None:
        """Whether frames may be pulled: only once the portal knows us."""
        if on and not self._streaming and self._client is not None:
            self._mark(self._client)  # the round trip, before anything waits on the way
        self._streaming = on
        self.frames_ready()

    def frames_ready(self) -> None:
        """The source has a frame, or had none before and may have one now."""
        client = self._client
        if client is None or not self._streaming or self._writing or client.want_write():
            return
        if self._reading:  # paho must not write from inside its callbacks
            self._frames_due = True
        else:
            self._write(client)

    # --- connecting ------------------------------------------------------------------------------

    def _dialled(self, dial: Dial, ready: Ready | None, seen: Observation | None) -> None:
        if dial is not self._dialling or dial.abandoned:
            if ready is not None:
                ready.close()
            return
        self._dialling = None
        if ready is None:
            reason = words.tell(classify(seen)) if seen is not None else ""
            self._events.lost(reason, seen)
            return
        client = Client(self._device, dial.route, ready, self._pong)
        self._client = client
        self._pacer = Pacer()
        self._pings.clear()
        client.on_log = client.on_trouble
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.on_socket_open = self._on_socket_open
        client.on_socket_close = self._on_socket_close
        client.on_socket_register_write = self._on_register_write
        client.on_socket_unregister_write = self._on_unregister_write
        self._events.dialled()
        server = dial.route.server
        client.connect(server.host, server.port, keepalive=KEEPALIVE_S)

    def _is_ours(self, client: Any) -> bool:
        return client is self._client

    # --- paho's callbacks ------------------------------------------------------------------------

    def _on_socket_open(self, client: Any, _data: Any, sock: Any) -> None:
        self._loop.add_reader(sock.fileno(), self._readable, client)

    def _on_socket_close(self, _client: Any, _data: Any, sock: Any) -> None:
        self._loop.remove_reader(sock.fileno())

    def _on_register_write(self, client: Any, _data: Any, sock: Any) -> None:
        if not self._writing:  # else `_write` looks itself, once, when it is through
            self._loop.add_writer(sock.fileno(), self._writable, client)

    def _on_unregister_write(self, _client: Any, _data: Any, sock: Any) -> None:
        if not self._writing:
            self._loop.remove_writer(sock.fileno())

    def _on_connect(self, client: Any, _data: Any, _flags: Any, code: Any, _p: Any) -> None:
        if not self._is_ours(client):
            return
        if code.is_failure:
            seen = client.seen(Failure.CODE, str(code))
            self._lost(words.tell(classify(seen)), seen)
        else:
            client.accepted = True
            self._events.accepted()

    def _on_subscribe(self, client: Any, _data: Any, _mid: int, codes: Any, _p: Any) -> None:
        if client is not self._client:
            return
        if any(code.is_failure for code in codes):
            self._lost(_("the server refused the subscription"))
        else:
            self._events.subscribed()

    def _on_disconnect(self, client: Any, _data: Any, _flags: Any, code: Any, _p: Any) -> None:
        if self._is_ours(client):
            seen = client.seen(Failure.CUT, client.trouble or str(code))
            self._lost(words.tell(classify(seen)), seen)

    def _on_publish(self, client: Any, _data: Any, mid: int, _code: Any, _p: Any) -> None:
        # At QoS 0 this says that the packet was written, and there is no token.
        if client is self._client and (token := self._tokens.pop(mid, None)) is not None:
            self._events.acknowledged(token)

    def _on_message(self, client: Any, _data: Any, message: Any) -> None:
        if client is self._client:
            self._events.received(message.topic, bytes(message.payload))

    def _pong(self) -> None:
        if not self._pings:
            return  # nobody asked
        self._pacer.answered(self._loop.time())
        if self._pings.popleft():
            self._events.pong()
        self.frames_ready()

    def _lost(self, reason: str, seen: Observation | None = None) -> None:
        self.hang_up()
        self._events.lost(reason, seen)

    # --- the socket ------------------------------------------------------------------------------

    def _readable(self, client: Client) -> None:
        if client is not self._client:
            return
        self._events.heard()
        self._reading = True
        try:
            self._read(client)
        finally:
            self._reading = False
        if self._frames_due:
            self._frames_due = False
            self.frames_ready()

    def _read(self, client: Client) -> None:
        try:
            for _each in range(READS):
                client.loop_read()
                if client is not self._client:
                    return
                if client.arriving > MAX_PACKET:
                    self._lost(_("the server sent a packet that is too large"))
                    return
                # What TLS has decrypted already wakes no selector.
                if not client.socket().pending():  # type: ignore[union-attr]
                    return
            self._loop.call_soon(self._readable, client)
        except Exception as error:
            # paho would meet the same packet again: this connection is of no more use.
            log.exception("reading from the link failed")
            self._lost(type(error).__name__)

    def _writable(self, client: Client) -> None:
        if client is not self._client:
            if (sock := client.socket()) is not None:
                self._loop.remove_writer(sock.fileno())
            return
        self._write(client)

    def _write(self, client: Client) -> None:
        """What is queued, then frames, until the socket is full or there are no more.

        At once rather than when the selector says so, which costs a turn of the loop and two calls
        of the kernel for each frame.
        """
        self._writing = True
        try:
            client.loop_write()
            for _each in range(FRAMES):
                if client is not self._client or client.want_write() or not self._pull(client):
                    break
                client.loop_write()
            else:
                # The socket took all of it: with nothing queued, no event would bring us back here.
                self._loop.call_soon(self._writable, client)
        except Exception as error:
            log.exception("writing to the link failed")
            self._lost(type(error).__name__)
        finally:
            self._writing = False
        sock = client.socket()
        if sock is not None and client is self._client:
            if client.want_write():
                self._loop.add_writer(sock.fileno(), self._writable, client)
            else:
                self._loop.remove_writer(sock.fileno())

    def _pull(self, client: Client) -> bool:
        if not self._streaming:
            return False
        pacer = self._pacer
        turn = min(pacer.turn, self._valve.turn)
        frame = self._next_frame(turn, min(pacer.frame, self._valve.frame))
        if frame is None:
            if turn < pacer.turn:  # something may wait for the cap
                self._valve.later()
            return False
        client.publish(self._up_stream, frame, qos=0)
        self._valve.spent(len(frame))
        pacer.sent(self._loop.time(), len(frame))
        if pacer.mark_due:
            self._mark(client)
        return True
