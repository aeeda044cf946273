"""Messages that came down: each to its handler, in order, one after another.

Whatever a message does to its handler, the next one runs. What could not be used is recorded in
the audit chain, by digest and coded reason, but not so often that a hostile portal could fill the
disk. The portal repeats what was not accepted, so a message may be dropped, and must not be acted
on twice.
"""

import asyncio
import hashlib
import inspect
import logging
from collections import deque
from typing import TYPE_CHECKING

from agent.errors import AgentError
from agent.wire.catalogue import Outcome
from agent.wire.messages import Audit, Message, Refused, ServerHead, SignedHead, Welcome

if TYPE_CHECKING:
    from agent.runtime import Agent

HANDLER_S = 15.0  # for one message
MAX_WAITING = 256
RECORDED_PER_MINUTE = 10

log = logging.getLogger(__name__)


class Inbox:
    """`put` from the connection, `work` in a task of its own."""

    def __init__(self, agent: "Agent") -> None:
        self.clock_skew_ms: float | None = None  # the portal's clock less ours; for charts only
        self._agent = agent
        self._queue: asyncio.Queue[tuple[Message, bytes]] = asyncio.Queue(MAX_WAITING)
        agent.handle(Welcome, self._welcome)
        agent.handle(Refused, self._refused)
        agent.handle(ServerHead, self._server_head)
        self._suspect = ""  # hash of the newest head that was not kept
        self._recorded: deque[float] = deque(maxlen=RECORDED_PER_MINUTE)

    def put(self, message: Message, payload: bytes) -> None:
        try:
            self._queue.put_nowait((message, payload))
        except asyncio.QueueFull:
            log.warning("a %s was dropped: too many wait", message.TYPE)

    async def work(self) -> None:
        while True:
            await self._one(*await self._queue.get())

    async def _one(self, message: Message, payload: bytes) -> None:
        digest = hashlib.sha256(payload).hexdigest()
        handler = self._agent.handlers.get(type(message))
        if handler is None:
            self.ignored("no_handler", digest)
            return
        try:
            async with asyncio.timeout(HANDLER_S):
                made = handler(message, payload)
                if inspect.isawaitable(made):
                    await made
        except TimeoutError:
            log.error("a %s took too long", message.TYPE)
            self.ignored("timeout", digest)
        except AgentError as error:
            log.warning("a %s was not used: %s", message.TYPE, error)
            self.ignored(error.code, digest)
        except Exception:
            log.exception("a %s made its handler fail", message.TYPE)
            self.ignored("internal", digest)

    def ignored(self, reason: str, digest: str) -> None:
        """Record that a message from the portal was not acted on."""
        now = self._agent.clock.now()
        full = len(self._recorded) == RECORDED_PER_MINUTE
        log.warning("a message from the portal was ignored: %s", reason)
        if full and now - self._recorded[0] < 60:
            return
        self._recorded.append(now)
        self._agent.record(
            "message:ignore",
            actor="portal",
            outcome=Outcome.REFUSED,
            reason=reason,
            digest=digest,
        )

    # --- what the base of the agent answers itself -----------------------------------------------

    async def _welcome(self, message: Welcome, _payload: bytes) -> None:
        self.clock_skew_ms = float(message.at - self._agent.clock.wall_ms())
        if message.head is not None:
            await self._keep(message.head)

    async def _server_head(self, message: ServerHead, _payload: bytes) -> None:
        await self._keep(message.head)

    async def _keep(self, head: SignedHead) -> None:
        found = await self._agent.audit.keep_server_head(
            head, self._agent.identity.server_audit_key
        )
        if found in ("fork", "unsigned") and head.hash != self._suspect:
            self._suspect = head.hash  # it is told again with each connection: once is enough
            log.error("the server's audit chain: %s", found)
            self._agent.record(
                "audit:server_head",
                actor="portal",
                outcome=Outcome.REFUSED,
                reason=found,
                digest=head.hash,
            )

    async def _refused(self, message: Refused, _payload: bytes) -> None:
        """The portal will not have an entry: it is not sent again, and what is behind it flows."""
        if message.outbox != self._agent.outbox.id:
            return
        entry = await self._agent.outbox.refuse(message.seq, message.reason.value)
        log.error("the portal refused message %d: %s", message.seq, message.reason)
        # A refused audit message is not recorded, or each refusal would make the next one.
        if entry is not None and entry.type != Audit.TYPE:
            self._agent.record(
                "message:refused",
                actor="portal",
                outcome=Outcome.FAILED,
                reason=message.reason.value,
                digest=entry.digest,
            )
