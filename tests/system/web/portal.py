"""A portal for the browser client's pages: `tests.client.portal`, with the calls of a browser.

It decides by itself what it sends and can lie, as one in an attacker's hands could. Its injector
end takes an access passkey, checked as a real injector checks it.
"""

import asyncio
import base64
import json
import secrets
from typing import Any

import msgspec

from agent.access import passkeys
from agent.wire import challenge
from agent.wire.messages import PasskeyProof
from agent.wire.mux import Mux
from agent.wire.roster import Passkey
from agent.wire.seal import Role, derive
from tests.client.portal import JSON, Held, TestPortal

PROTOCOL = "patency.stream.1"
ASKED: JSON = {
    "device": "dev_Alpha-01", "level": "os", "services": ["console"], "reason": "repair",
    "ticket": "T-77", "note": "heater <b>cold</b> after filling", "life_s": 1800,
}  # fmt: skip


class BrowserPortal(TestPortal):
    """`passkeys` are those of its roster, by credential id; `origin` is where they belong."""

    def __init__(self, *args: Any, origin: str, **options: Any) -> None:
        super().__init__(*args, **options)
        self.origin = origin
        self.passkeys: dict[bytes, Passkey] = {}
        self.tickets: dict[str, str] = {}  # ticket: session
        self.tokens: dict[str, str] = {}
        self.calls: list[tuple[str, dict[bytes, str]]] = []
        self.swap = False  # show another challenge once one was shown
        self.approves = True

    def link(self, **changes: Any) -> tuple[str, Held]:
        """A request made in the portal, and the address behind its button."""
        held = self.make_session({**ASKED, **changes})
        ticket = secrets.token_urlsafe(32)
        self.tickets[ticket] = held.id
        return f"{self.origin}/#session={held.id}&ticket={ticket}", held

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        headers = {name: value.decode() for name, value in scope["headers"]}
        self.loop = asyncio.get_running_loop()
        self.calls.append((scope["path"] + "?" + scope["query_string"].decode(), headers))
        if scope["type"] == "websocket":
            await self._stream(scope, receive, send)
        elif scope["path"].startswith("/api/v1/access/browser/"):
            await self._http(scope, headers, receive, send)
        else:
            await super().app(scope, receive, send)

    async def _stream(self, scope: Any, receive: Any, send: Any) -> None:
        offered = scope["subprotocols"]
        token = next((it[7:] for it in offered if it.startswith("bearer.")), "")
        known = self.tokens.get(token) == scope["path"].rsplit("/", 1)[1]

        async def accept(message: Any) -> None:
            if message["type"] == "websocket.accept":
                message = {**message, "subprotocol": PROTOCOL}
            await send(message)

        await self._websocket(scope["path"], known, receive, accept)

    async def _http(self, scope: Any, headers: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        cors = [
            (b"access-control-allow-origin", self.origin.encode()),
            (b"access-control-allow-headers", b"authorization, content-type, accept-language"),
            (b"access-control-allow-methods", b"GET, POST"),
        ]
        if scope["method"] == "OPTIONS":
            status, answer = 204, None
        elif self.away:
            status, answer = 502, None
        else:
            path = scope["path"].removeprefix("/api/v1/access/browser/")
            status, answer = self._browser(path, headers, json.loads(body) if body else {})
        data = b"" if answer is None else json.dumps(answer).encode()
        await send({"type": "http.response.start", "status": status, "headers": cors})
        await send({"type": "http.response.body", "body": data})

    def _browser(self, path: str, headers: Any, body: JSON) -> tuple[int, Any]:
        if path == "pass/":
            session = self.tickets.pop(body["ticket"], None)
            if session is None:
                return 401, {"error": "not_authenticated", "detail": "This link was used before."}
            token = secrets.token_urlsafe(32)
            self.tokens[token] = session
            return 200, {"session": session, "token": token}
        token = headers.get(b"authorization", "").removeprefix("Bearer ")
        held = self.sessions.get(self.tokens.get(token, ""))
        if held is None:
            return 401, {"error": "not_authenticated", "detail": "The pass is unknown."}
        if path == "session/answer/":
            return self._take_proof(held, body)
        if path == "session/end/":
            self.end(held, "ended_by_specialist")
        return 200, self._show(held)

    def _take_proof(self, held: Held, body: JSON) -> tuple[int, Any]:
        self.answers.append(body)
        assert held.challenge is not None
        key = base64.b64decode(body["client_key"])
        if not self.is_signed(body["proof"], challenge.to_sign(held.challenge, key)):
            held.state, held.reason = "refused", "bad_signature"
            return 200, self._show(held)
        held.state = "presence"
        seal = derive(
            private=held.key, peer=key, binding=challenge.digest(held.challenge),
            session=bytes.fromhex(held.id), role=Role.DEVICE,
        )  # fmt: skip
        held.mux = Mux(seal)
        if self.approves:
            held.state = "active"
        return 200, self._show(held)

    def is_signed(self, proof: JSON, signed: bytes) -> bool:
        """As an injector whose roster has these passkeys would judge it."""
        given = msgspec.convert({"kind": "passkey", **proof}, PasskeyProof)
        known = self.passkeys.get(given.id)
        if known is None:
            return False
        try:
            passkeys.verify(given, known, origin=self.origin, challenge=signed, counter=0)
        except passkeys.PasskeyError:
            return False
        return True
