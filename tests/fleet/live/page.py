"""A page's end of the live websocket (channels' own test client needs a second web server)."""

import json
from typing import Any

from asgiref.testing import ApplicationCommunicator


class Page(ApplicationCommunicator):
    """Speaks ASGI to the application as a browser's websocket would."""

    def __init__(
        self, application: Any, headers: list[tuple[bytes, bytes]], *, path: str = "/ws/live/"
    ) -> None:
        scope = {"type": "websocket", "path": path, "query_string": b"", "headers": headers}
        super().__init__(application, {**scope, "subprotocols": []})
        self.accepted = False

    async def connect(self) -> None:
        await self.send_input({"type": "websocket.connect"})
        self.accepted = (await self.receive_output(5))["type"] == "websocket.accept"

    async def send_to(
        self, *, text_data: str | None = None, bytes_data: bytes | None = None
    ) -> None:
        message = {"type": "websocket.receive", "text": text_data, "bytes": bytes_data}
        await self.send_input({k: v for k, v in message.items() if v is not None})

    async def send_json_to(self, message: Any) -> None:
        await self.send_to(text_data=json.dumps(message))

    async def receive_json_from(self, seconds: float = 5) -> Any:
        message = await self.receive_output(seconds)
        assert message["type"] == "websocket.send", message
        return json.loads(message["text"])

    async def disconnect(self) -> None:
        await self.send_input({"type": "websocket.disconnect", "code": 1000})
        await self.wait(5)
