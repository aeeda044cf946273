"""Standard input and output on one stream of a session."""

import asyncio
import contextlib
import os
import threading
from typing import BinaryIO

from agent.wire.mux import ResetCode
from fleet.client import words
from fleet.client.carrier import Carrier, Stream, StreamReset
from fleet.client.errors import ClientError, Exit
from fleet.client.i18n import _
from fleet.client.tunnel import Carrying

_PIECE = 64 * 1024  # bytes read from the input at a time, at most
_FLUSH_S = 30.0  # how long the injector may take to use what was typed last
_REASON_S = 1.5
_EXITS = {
    ResetCode.GAP: Exit.UNREACHABLE,
    ResetCode.SESSION_OVER: Exit.OVER,
    ResetCode.REFUSED: Exit.NOT_ALLOWED,
    ResetCode.UNREACHABLE: Exit.NOT_FOUND,
}


async def shell(
    carrier: Carrier, carrying: Carrying, service: str, *, source: BinaryIO, sink: BinaryIO
) -> None:
    """Until the service ends. The end of the input is told to the service, which may still speak.

    Raises what `carrying` raises, and ClientError when the stream is cut.
    """
    ready = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        holder = group.create_task(carrying(ready.set))
        await ready.wait()
        try:
            stream = await carrier.open(Stream(carrier), service)
            typing = group.create_task(_type(source, stream))
            while data := await stream.read():
                await asyncio.to_thread(_put, sink, data)
                stream.used(len(data))
            typing.cancel()
            stream.end()
            async with asyncio.timeout(_FLUSH_S):
                await stream.acknowledged()
        except StreamReset as cut:
            # When the session is over, its holder is about to say why, and ends this group.
            await asyncio.sleep(_REASON_S)
            raise ClientError(words.reset(cut.code), _EXITS.get(cut.code, Exit.FAILED)) from None
        except TimeoutError:
            raise ClientError(_("The injector stopped answering."), Exit.TIMED_OUT) from None
        await carrier.flush(_FLUSH_S)
        holder.cancel()


def _put(sink: BinaryIO, data: bytes) -> None:
    sink.write(data)
    sink.flush()


async def _type(source: BinaryIO, stream: Stream) -> None:
    """What is typed, or comes down a pipe.

    A thread reads, because a terminal, a pipe and a file differ in what an event loop can wait
    for; it holds one piece at a time, and dies with the process.
    """
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[bytes] = asyncio.Queue(1)

    def read() -> None:
        data = b"x"
        with contextlib.suppress(RuntimeError, asyncio.CancelledError):  # the command is over
            while data:
                data = os.read(source.fileno(), _PIECE)
                asyncio.run_coroutine_threadsafe(pieces.put(data), loop).result()

    threading.Thread(target=read, daemon=True).start()
    with contextlib.suppress(StreamReset):  # whoever reads the stream tells
        while data := await pieces.get():
            await stream.write(data)
        stream.end()
