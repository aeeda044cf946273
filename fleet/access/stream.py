"""Placeholder of the stream endpoint: nothing is carried yet."""

from fleet.core.asgi import Receive, Scope, Send, refuse_websocket


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    await refuse_websocket(receive, send, 4404)
