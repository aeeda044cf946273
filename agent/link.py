"""The connection on the agent's event loop: the shell that carries out what the core decides.

One `Link` serves an agent; each connection is a fresh paho client (agent.mqtt) over a lane
(agent.lane). Names, TCP and TLS are dealt with in a thread of their own, because all three can
block for long; from there on the socket is non-blocking and belongs to the loop.

Fairness. What must not wait goes into paho's queue at once. Frames of streams and messages of the
outbox are asked for one at a time (agent.outflow), and only while nothing waits for the socket; a
few frames go to TLS in one piece. The kernel is told to take little (TCP_NOTSENT_LOWAT): what is
not yet sent can still be overtaken. How much may be anywhere between here and the gate is the
pacer's to say (agent.wire.pacer); its marks are PINGREQs, whose answers come in the order of
everything that was sent (R-CON-4). The core's own pings are marks as well.
"""

import asyncio
import contextlib
import logging
import ssl
from collections import deque
from typing import Any, Protocol

from agent.dial import Date, Dial
from agent.i18n import _
from agent.lane import Lane, Next, TooLarge
from agent.mqtt import Client
from agent.network import words
from agent.network.findings import Failure, Observation, classify
from agent.network.journey import Ready
from agent.network.route import Route
from agent.outflow import Message, Outflow, Source

READS = 64  # packets before the loop's other work has its turn
PIECES = 8  # pieces, likewise
PIECE = 60 * 1024  # bytes of frames after which no more go to TLS at once: two of the largest

Token = object

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
    def frame(self, frame: bytes) -> None: ...


class Link:
    """At most one connection. `next_frame` is the source of stream frames."""

    def __init__(
        self, device: str, events: Events, next_frame: Source = lambda turn, most: None
    ) -> None:
        self._device = device
        self._events = events
        self._loop = asyncio.get_running_loop()
        self._client: Client | None = None
        self._dialling: Dial | None = None
        self._tokens: dict[int, Token] = {}
        self._outflow = Outflow(next_frame, self._loop.time())
        self._timer: asyncio.TimerHandle | None = None  # the cap lets more leave
        self._reading = False  # what becomes ready meanwhile is written afterwards
        self._writing = False
        self._due = False
        self._pings: deque[bool] = deque()  # unanswered, oldest first; true: the core's own

    # --- what the core asks for ------------------------------------------------------------------

    def dial(
        self, route: Route, context: ssl.SSLContext, timeout_s: float, date: Date | None = None
    ) -> None:
        """Connect. `dialled`, `accepted` or `lost` follow."""
        self.hang_up()
        if self._dialling is not None and self._dialling.alive:
            # A name server that never answers holds the thread; another would be held as well.
            seen = self._dialling.late()
            self._loop.call_soon(self._events.lost, words.tell(classify(seen)), seen)
            return
        self._dialling = Dial(self._loop, route, context, timeout_s, self._dialled, date)

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
        self._tokens.clear()
        self._outflow.begin()
        self._stop_timer()
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
                with contextlib.suppress(OSError):
                    client.write()
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

        With `may_wait` it leaves once path and cap let it, behind those that wait already.
        """
        if self._client is None:
            return
        if may_wait:
            self._outflow.offer(Message(topic, payload, token))
            self.frames_ready()
        else:
            self._outflow.spent(self._loop.time(), len(payload))
            self._send(self._client, topic, payload, token)

    def _send(self, client: Client, topic: str, payload: bytes, token: Token | None) -> None:
        info = client.publish(topic, payload, qos=0 if token is None else 1)
        if token is not None:
            self._tokens[info.mid] = token

    def cap(self, rate: int | None) -> None:
        """Send at most so many bytes a second from now on; None lifts the cap."""
        self._outflow.set_cap(rate, self._loop.time())
        self._stop_timer()
        self.frames_ready()

    @property
    def spare(self) -> bool:
        """Whether the cap leaves room for what nobody misses."""
        return self._outflow.spare(self._loop.time())

    def ping(self) -> None:
        if self._client is not None:
            self._mark(self._client, own=True)
            self.frames_ready()

    def _mark(self, client: Client, *, own: bool = False) -> None:
        self._pings.append(own)
        self._outflow.pacer.marked(self._loop.time())
        client.lane.ping()

    def stream(self, on: bool) -> None:
        """Whether frames may be pulled: only once the portal knows us."""
        if on and not self._outflow.streaming and self._client is not None:
            self._mark(self._client)  # the round trip, before anything waits on the way
        self._outflow.streaming = on
        self.frames_ready()

    def frames_ready(self) -> None:
        """Something may leave that could not, or was not there: frames, messages, a ping."""
        client = self._client
        if client is None or self._writing or client.watched:
            return
        if self._reading:  # once for everything that came
            self._due = True
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
        client = Client(self._device, dial.route, Lane(ready, self._device))
        self._client = client
        self._outflow.begin()
        self._pings.clear()
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.on_socket_open = self._on_socket_open
        client.on_socket_close = self._on_socket_close
        client.on_socket_register_write = self._on_register_write
        self._events.dialled()
        client.begin()

    def _is_ours(self, client: Any) -> bool:
        return client is self._client

    # --- paho's callbacks ------------------------------------------------------------------------

    def _on_socket_open(self, client: Any, _data: Any, sock: Any) -> None:
        self._loop.add_reader(sock.fileno(), self._readable, client)

    def _on_socket_close(self, client: Any, _data: Any, sock: Any) -> None:
        self._loop.remove_reader(sock.fileno())
        self._watch(client, False)

    def _on_register_write(self, client: Any, _data: Any, _sock: Any) -> None:
        if not self._writing:  # else `_write` looks itself, once, when it is through
            self._watch(client, True)

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
            self._cut(client, client.trouble)

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
        self._outflow.pacer.answered(self._loop.time())
        if self._pings.popleft():
            self._events.pong()
        self.frames_ready()

    def _cut(self, client: Client, detail: str) -> None:
        seen = client.seen(Failure.CUT, detail)
        self._lost(words.tell(classify(seen)), seen)

    def _lost(self, reason: str, seen: Observation | None = None) -> None:
        self.hang_up()
        self._events.lost(reason, seen)

    # --- reading ---------------------------------------------------------------------------------

    def _readable(self, client: Client) -> None:
        if client is not self._client:
            return
        self._reading = True
        try:
            client.lane.fill()
            if not client.lane.over:  # an end breaks the silence no more than a reset does
                self._events.heard()
            self._read(client)
        except TooLarge:
            self._lost(_("the server sent a packet that is too large"))
        except OSError as error:
            self._broken(client, error)
        except Exception as error:
            # paho would meet the same packet again: this connection is of no more use.
            log.exception("reading from the link failed")
            self._lost(type(error).__name__)
        finally:
            self._reading = False
        if self._due:
            self._due = False
            self.frames_ready()

    def _read(self, client: Client) -> None:
        lane, events = client.lane, self._events
        for _each in range(READS):
            found = lane.next()
            if found is None:
                return
            if found is Next.OTHER:
                client.loop_read()
            elif found is Next.PONG:
                self._pong()
            else:
                events.frame(found)
            if client is not self._client:
                return
        self._loop.call_soon(self._readable, client)

    def _broken(self, client: Client, error: OSError) -> None:
        client.trouble = str(error)
        if client is self._client:
            self._cut(client, client.trouble)

    # --- writing ---------------------------------------------------------------------------------

    def _writable(self, client: Client) -> None:
        if client is self._client:
            self._write(client)
        else:
            self._watch(client, False)

    def _write(self, client: Client) -> None:
        """What waits, then frames and messages, until the socket is full or there are no more.

        At once rather than when the selector says so, which costs a turn of the loop and two calls
        of the kernel for each frame.
        """
        self._writing = True
        waits = True
        try:
            waits = not self._drain(client)
        except OSError as error:
            self._broken(client, error)
        except Exception as error:
            log.exception("writing to the link failed")
            self._lost(type(error).__name__)
        finally:
            self._writing = False
        if client is self._client:
            self._watch(client, waits)

    def _drain(self, client: Client) -> bool:
        """Whether nothing waits for the socket. Raises OSError."""
        for _each in range(PIECES):
            if not client.write() or client is not self._client:
                return False
            if not self._fill(client):
                return client.lane.flush()
        # The socket took all of it: with nothing queued, no event would bring us back here.
        self._loop.call_soon(self._writable, client)
        return not client.busy

    def _fill(self, client: Client) -> bool:
        """Put frames that may leave into the lane, a piece of them, or one message into paho's
        queue. Whether there may be more."""
        outflow, now, size = self._outflow, self._loop.time(), 0
        while size < PIECE:
            if outflow.pacer.mark_due:
                self._mark(client)
            found = outflow.next(now)
            if found is None:
                self._look_again_in(outflow.wait(now))
                return False
            if isinstance(found, Message):
                self._send(client, found.topic, found.payload, found.token)
                return True
            client.lane.put(found)
            size += len(found)
        return True

    def _watch(self, client: Client, wanted: bool) -> None:
        """Whether the loop is to say when the socket can be written."""
        if wanted is client.watched:
            return
        client.watched = wanted
        if wanted:
            self._loop.add_writer(client.lane.fileno(), self._writable, client)
        else:
            self._loop.remove_writer(client.lane.fileno())

    def _look_again_in(self, wait_s: float) -> None:
        """The cap holds something back until then; 0: it does not."""
        if wait_s and self._timer is None:
            self._timer = self._loop.call_later(wait_s, self._look_again)

    def _look_again(self) -> None:
        self._timer = None
        self.frames_ready()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
