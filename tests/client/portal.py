"""A small portal with an injector behind it, for the command's tests: real HTTP, real websockets.

Not a mock of ours: it decides by itself what it sends, and can lie in every way that a portal in
an attacker's hands could. The device end is the real multiplexer over the real seal.
"""

import asyncio
import base64
import contextlib
import hashlib
import json
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from agent.wire import challenge, messages, sshsig
from agent.wire.catalogue import Level, RequestReason
from agent.wire.frames import parse
from agent.wire.mux import Data, Ended, Mux, MuxError, Opened, Reset, ResetCode
from agent.wire.seal import Role, derive
from tests.tls import Authority

TOKEN = "pat_test"
DEVICE, OTHER = "dev_Alpha-01", "dev_Bravo-02"
SITE, LINE = "site-1", "ct-dual"  # the id of "Main"; the only product line
JSON = dict[str, Any]
DEVICES: list[JSON] = [
    {
        "serial": serial, "device": device, "product_line": "ct-dual", "organisation": "St. Anne",
        "site": "Main", "online": True, "state": "idle", "software_version": "10.0.4",
        "last_seen_at": "2026-11-23T09:00:00Z", "asset_number": "A-1", "room": "CT 1",
    }
    for serial, device in (("S-1001", DEVICE), ("S-1002", OTHER))
]  # fmt: skip

SERVICES = {"web": "diagnostics", "console": "os", "ssh": "os"}


@dataclass
class Held:
    """A session as portal and device hold it."""

    id: str
    request: bytes
    state: str = "requested"
    reason: str | None = None
    challenge: bytes | None = None
    signature: bytes = b""
    certificates: list[bytes] = field(default_factory=list)
    key: X25519PrivateKey = field(default_factory=X25519PrivateKey.generate)
    mux: Mux | None = None
    sockets: list[Any] = field(default_factory=list)
    local: dict[int, asyncio.StreamWriter] = field(default_factory=dict)
    room: dict[int, asyncio.Event] = field(default_factory=dict)
    owners: dict[int, Any] = field(default_factory=dict)  # whose websocket a stream is
    carried: list[bytes] = field(default_factory=list)  # frames that the portal saw


class TestPortal:
    """`lie` names an attack on the challenge; `refuse` what the device answers with."""

    __test__ = False

    def __init__(self, authority: Authority, *, specialist_key: bytes) -> None:
        self.authority = authority
        self.specialist_key = specialist_key
        self.sessions: dict[str, Held] = {}
        self.services: dict[str, int] = {}
        self.tickets: dict[str, str] = {}  # given afterwards
        self.lie: str | None = None
        self.refuse: str | None = None
        self.deny: int | None = None  # the status with which the portal itself refuses a request
        self.slow_s = 0.0
        self.languages: list[str] = []
        # What a sign-in by the browser is answered with, in turn; and the forms that came.
        self.decisions: list[tuple[int, Any]] = [(200, {"access_token": TOKEN})]
        self.forms: list[dict[str, str]] = []
        self.answers: list[JSON] = []
        self.away = False
        self.turn_away = False  # websockets alone
        self.url = ""
        self._tasks: set[asyncio.Task[None]] = set()
        self.loop: asyncio.AbstractEventLoop | None = None

    @contextlib.contextmanager
    def running(self) -> Iterator["TestPortal"]:
        listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = uvicorn.Server(
            uvicorn.Config(
                self.app,
                ws="websockets-sansio",
                log_level="error",
                lifespan="off",
                ws_per_message_deflate=False,
                timeout_graceful_shutdown=1,
                interface="asgi3",
            )
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield self
        finally:
            self.call(self._stop)
            server.should_exit = True
            thread.join(10)
            assert not thread.is_alive()
            listener.close()

    def _stop(self) -> None:
        for held in self.sessions.values():
            self.drop_websockets(held)
            for writer in held.local.values():
                writer.transport.abort()
        for task in self._tasks:
            task.cancel()

    def call(self, function: Any, *arguments: Any) -> None:
        """Run on the server's loop, from the test's thread; it has one once somebody called."""
        if self.loop is not None:
            self.loop.call_soon_threadsafe(function, *arguments)

    # --- HTTP -------------------------------------------------------------------------------------

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        self.loop = asyncio.get_running_loop()
        headers = {name: value.decode() for name, value in scope["headers"]}
        known = headers.get(b"authorization") == f"Bearer {TOKEN}"
        if scope["type"] == "websocket":
            await self._websocket(scope["path"], known, receive, send)
            return
        self.languages.append(headers.get(b"accept-language", ""))
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        if self.away:
            status, answer = 502, None
        elif scope["path"].startswith("/api/v1/sign-in/"):
            form = {k: v[0] for k, v in parse_qs(body.decode()).items()}
            self.forms.append(form)
            status, answer = self._sign_in(scope["path"])
        elif not known:
            status, answer = 401, {"error": "not_authenticated", "detail": "The token is unknown."}
        else:
            query = {k: v[0] for k, v in parse_qs(scope["query_string"].decode()).items()}
            path = scope["path"].removeprefix("/api/v1/")
            status, answer = await self._answer(
                scope["method"], path, query, json.loads(body) if body else {}
            )
        data = b"<html>" if answer is None else json.dumps(answer).encode()
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": data})

    def _sign_in(self, path: str) -> tuple[int, Any]:
        if path.endswith("/token/"):
            return self.decisions.pop(0)
        return 200, {
            "device_code": "secret-of-this-sign-in", "user_code": "BCDF-GHJK", "interval": 1,
            "verification_uri": "https://elsewhere.example/connect/", "expires_in": 600,
        }  # fmt: skip

    async def _answer(self, method: str, path: str, query: JSON, body: JSON) -> tuple[int, Any]:
        if path == "me/":
            return 200, {"username": "noor", "name": "Noor", "role": "specialist"}
        if path == "devices/":
            if query.get("site", SITE) != SITE or query.get("product_line", LINE) != LINE:
                return 400, {"error": "invalid", "detail": "There is no such thing."}
            found = [it for it in DEVICES if query.get("q", "") in it["serial"]]
            page = int(query["page"])  # pages of one, so that paging is met
            return 200, {
                "results": found[page - 1 : page],
                "next": "http://elsewhere.example/" if page < len(found) else None,
            }
        if path == f"devices/{DEVICE}/":
            return 200, {**DEVICES[0], "services": SERVICES}
        if path == "access/sessions/":
            if method == "POST":
                return self._request(body)
            return 200, {"results": [self._show(s) for s in reversed(self.sessions.values())]}
        match = re.fullmatch(r"access/sessions/([0-9a-f]{32})/(?:(\w+)/)?", path)
        held = self.sessions.get(match[1]) if match else None
        if match is None or held is None:
            return 404, {"error": "not_found", "detail": "There is nothing here."}
        if match[2] == "answer":
            return self._take_answer(held, body)
        if match[2] == "ticket":
            sent = json.loads(held.request)
            if sent["ticket"] is not None:
                return 409, {"error": "conflict", "detail": "It has another ticket."}
            self.tickets[held.id] = body["ticket"]
        if match[2] == "end":
            self.end(held, "ended_by_specialist")
        if match[2] == "audit":
            return 200, {"agree": True, "entries": [{"side": "server"}, {"side": "device"}]}
        return 200, self._show(held)

    def _show(self, held: Held) -> JSON:
        sent = json.loads(held.request)

        def b64(data: bytes | None) -> str | None:
            return None if data is None else base64.b64encode(data).decode()

        return {
            "session": held.id, "device": sent["device"], "serial": "S-1001",
            "specialist": "noor", "level": sent["level"], "services": sent["services"],
            "reason": sent["reason"], "note": sent["note"],
            "ticket": self.tickets.get(held.id, sent["ticket"]),
            "life_s": sent["life_s"], "state": held.state, "state_reason": held.reason,
            "challenge": b64(held.challenge), "challenge_signature": b64(held.signature),
            "certificates": [b64(it) for it in held.certificates], "request": b64(held.request),
        }  # fmt: skip

    def _request(self, body: JSON) -> tuple[int, Any]:
        if "rogue" in body["note"]:
            return 400, {
                "error": "invalid", "detail": "Wrong input.", "fields": {"note": ["Too long."]},
            }  # fmt: skip
        if self.deny is not None:
            return self.deny, {"error": "conflict", "detail": "It cannot be."}
        held = self.make_session(body)
        return 201, self._show(held)

    def make_session(self, body: JSON) -> Held:
        """A request, from the command or from elsewhere."""
        wanted = dict(body)
        if self.lie == "request":  # asks the injector for more than the specialist did
            wanted["level"], wanted["life_s"] = "os", 8 * 3600
        session = secrets.token_hex(16)
        request = messages.AccessRequest(
            at=int(time.time() * 1000), session=session, device=wanted["device"],
            specialist="noor", name="Noor Haddad", organisation="Vendor",
            level=Level(wanted["level"]), services=wanted["services"],
            reason=RequestReason(wanted["reason"]), ticket=wanted["ticket"],
            note=wanted["note"], life_s=wanted["life_s"],
        )  # fmt: skip
        held = self.sessions[session] = Held(session, messages.encode(request))
        if self.refuse:
            held.state, held.reason = "refused", self.refuse
        elif self.slow_s and self.loop is not None:
            self.loop.call_later(self.slow_s, self._challenge, held, request)
        else:
            self._challenge(held, request)
        return held

    # --- the injector -----------------------------------------------------------------------------

    def _challenge(self, held: Held, request: messages.AccessRequest) -> None:
        device = OTHER if self.lie == "device" else request.device
        terms: JSON = {
            "session": secrets.token_hex(16) if self.lie == "session" else held.id,
            "request": hashlib.sha256(held.request).hexdigest(), "device": request.device,
            "specialist": "mallory" if self.lie == "specialist" else request.specialist,
            "level": Level.OS if self.lie == "level" else request.level,
            "services": [*request.services, "ssh"] if self.lie == "services" else request.services,
            "life_s": 28800 if self.lie == "life" else request.life_s, "presence": True,
            "boot": "b0" * 16, "nonce": secrets.token_hex(32),
            "key": held.key.public_key().public_bytes_raw(),
        }  # fmt: skip
        if self.lie == "digest":
            terms["request"] = "00" * 32
        authority = Authority() if self.lie == "root" else self.authority
        issued = authority.device(device)
        held.challenge = challenge.encode(challenge.Terms(**terms))
        held.signature = issued.key.sign(held.challenge, ec.ECDSA(SHA256()))
        if self.lie == "signature":
            held.signature = ec.generate_private_key(ec.SECP256R1()).sign(
                held.challenge, ec.ECDSA(SHA256())
            )
        if self.lie == "bytes":
            held.challenge = held.challenge.replace(b"dev_Alpha", b"dev_Alphb")
        if self.lie == "key":  # a key of the portal's own, to sit in the middle
            own = X25519PrivateKey.generate().public_key().public_bytes_raw()
            terms["key"] = own
            held.challenge = challenge.encode(challenge.Terms(**terms))
        held.certificates = [
            it.public_bytes(Encoding.DER) for it in (issued.certificate, *issued.chain)
        ]
        if self.lie == "garbage":
            held.certificates = [b"\x30\x00"]
        held.state = "challenged"

    def _take_answer(self, held: Held, body: JSON) -> tuple[int, Any]:
        self.answers.append(body)
        assert held.challenge is not None
        key, signature = map(base64.b64decode, (body["client_key"], body["proof"]["signature"]))
        try:
            signer = sshsig.verify(signature, challenge.to_sign(held.challenge, key))
        except sshsig.SignatureError:
            signer = b""
        if signer != self.specialist_key:
            held.state, held.reason = "refused", "bad_signature"
        else:
            held.state = "active"
            seal = derive(
                private=held.key, peer=key, binding=challenge.digest(held.challenge),
                session=bytes.fromhex(held.id), role=Role.DEVICE,
            )  # fmt: skip
            held.mux = Mux(seal)
        return 200, self._show(held)

    def end(self, held: Held, reason: str) -> None:
        held.state, held.reason = "ended", reason
        for queue in held.sockets:
            queue.put_nowait(None)

    # --- streams ----------------------------------------------------------------------------------

    async def _websocket(self, path: str, known: bool, receive: Any, send: Any) -> None:
        await receive()
        held = self.sessions.get(path.rsplit("/", 1)[1])
        await send({"type": "websocket.accept"})
        refused = not known or held is None or held.mux is None or held.state != "active"
        if refused or self.turn_away:
            code = 1013 if not refused else 4401 if not known else 4409 if held else 4404
            await send({"type": "websocket.close", "code": code})
            return
        wake: asyncio.Queue[bytes | None] = asyncio.Queue()  # bounded by the mux's credit
        held.sockets.append(wake)
        sender = asyncio.create_task(self._send(wake, send))
        try:
            while (message := await receive())["type"] == "websocket.receive":
                held.carried.append(message["bytes"])
                held.owners[parse(message["bytes"]).stream] = wake
                with contextlib.suppress(MuxError):  # sent again, and had arrived
                    for event in held.mux.receive(message["bytes"]):
                        self._on_event(held, event)
                self._kick(held)
        finally:
            held.sockets.remove(wake)
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    async def _send(self, frames: "asyncio.Queue[bytes | None]", send: Any) -> None:
        while (frame := await frames.get()) is not None:
            await send({"type": "websocket.send", "bytes": frame})
        await send({"type": "websocket.close", "code": 4409})

    def _start(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _used(self, held: Held, event: Data, writer: asyncio.StreamWriter) -> None:
        """Bytes count as used once the local service's socket took them."""
        assert held.mux is not None
        with contextlib.suppress(OSError):
            await writer.drain()
            held.mux.consumed(event.stream, len(event.data))
            self._kick(held)

    def _on_event(self, held: Held, event: Any) -> None:
        assert held.mux is not None
        room = held.room.setdefault(event.stream, asyncio.Event())
        room.set()
        match event:
            case Opened():
                if event.service in self.services:
                    self._start(self._dial(held, event))
                else:
                    held.mux.reset(event.stream, ResetCode.REFUSED)
            case Data():
                writer = held.local[event.stream]
                writer.write(event.data)
                self._start(self._used(held, event, writer))
            case Ended():
                held.local[event.stream].write_eof()
            case Reset():
                writer = held.local.pop(event.stream, None)
                if writer is not None:
                    writer.transport.abort()

    async def _dial(self, held: Held, event: Opened) -> None:
        mux = held.mux
        assert mux is not None
        try:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", self.services[event.service]
            )
        except OSError:
            mux.reset(event.stream, ResetCode.UNREACHABLE)
            self._kick(held)
            return
        held.local[event.stream] = writer
        mux.accept(event.stream)
        self._kick(held)
        room = held.room[event.stream]
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                start = 0
                while start < len(data) and event.stream in mux.streams:
                    size = min(mux.writable(event.stream), len(data) - start)
                    mux.send(event.stream, data[start : start + size])
                    start += size
                    self._kick(held)
                    if not size:
                        room.clear()
                        await room.wait()
            mux.end(event.stream)
            self._kick(held)
        while event.stream in mux.streams:
            room.clear()
            await room.wait()
        writer.close()

    @staticmethod
    def _kick(held: Held) -> None:
        """Send what may be sent, each frame to the websocket whose stream it is."""
        assert held.mux is not None
        while held.sockets and (frame := held.mux.next_frame()) is not None:
            held.carried.append(frame)
            owner = held.owners.get(parse(frame).stream)
            (owner if owner in held.sockets else held.sockets[-1]).put_nowait(frame)

    def drop_websockets(self, held: Held) -> None:
        """The link breaks, with nobody's leave; what waits is lost, and the session goes on."""
        for queue in held.sockets:
            while not queue.empty():
                queue.get_nowait()
            queue.put_nowait(None)

    @staticmethod
    def stream_types(held: Held) -> set[str]:
        return {parse(frame).type.name for frame in held.carried}
