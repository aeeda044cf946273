"""The browser client's JavaScript, called from Python: in node, and in headless Chromium.

`JsMux` is the client's multiplexer with the interface of `agent.wire.mux.Mux`, so that the tests of
that one also try this one.
"""

import itertools
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.wire.frames import parse
from agent.wire.mux import (
    Accepted,
    Acknowledged,
    Credited,
    Data,
    Ended,
    Event,
    LocalError,
    MuxError,
    Reset,
    ResetCode,
)
from tests.agent.wire.muxes import SESSION

if TYPE_CHECKING:
    from playwright.sync_api import Page

WEB = Path(__file__).resolve().parents[3] / "fleet" / "client" / "web"
DRIVER = Path(__file__).with_name("driver.mjs")
_ids = itertools.count(1)


class ThrownError(Exception):
    """What a module of the client threw: the name of its class, its code and its words."""

    def __init__(self, name: str, code: Any, detail: str) -> None:
        super().__init__(f"{name}: {detail}")
        self.name, self.code, self.detail = name, code, detail


class Engine:
    """Calls the driver. `ask` takes a line of JSON to it and brings one back."""

    def __init__(self, ask: Callable[[str], str], base: str) -> None:
        self._ask = ask
        self.call("load", base=base)

    def call(self, op: str, **arguments: Any) -> Any:
        answer = json.loads(self._ask(json.dumps({"op": op, **arguments})))
        if "error" in answer:
            raise ThrownError(answer["error"], answer.get("code"), answer["detail"])
        return answer["result"]


def in_node(process: "subprocess.Popen[str]") -> Engine:
    def ask(line: str) -> str:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(line + "\n")
        process.stdin.flush()
        return process.stdout.readline()

    return Engine(ask, f"{(WEB / 'js').as_uri()}/")


def in_page(page: "Page") -> Engine:
    """`page` is any of the client's own pages; the driver comes in beside the client's files."""
    page.route("**/driver.mjs", lambda route: route.fulfill(path=DRIVER))

    def ask(line: str) -> str:
        return str(page.evaluate("async line => (await import('/driver.mjs')).answer(line)", line))

    return Engine(ask, "/js/")


class JsMux:
    """The client's end, in JavaScript. No nonce of it may ever seal two texts."""

    def __init__(
        self,
        engine: Engine,
        *,
        send: bytes,
        receive: bytes,
        session: bytes = SESSION,
        **options: int,
    ) -> None:
        self._engine = engine
        self._id = next(_ids)
        self._made: dict[tuple[int, int], bytes] = {}
        engine.call(
            "newMux", id=self._id, session=session.hex(), send=send.hex(), receive=receive.hex(),
            options=options,
        )  # fmt: skip

    def close(self) -> None:
        self._engine.call("dropMux", id=self._id)

    def _call(self, method: str, *args: Any) -> Any:
        try:
            return self._engine.call("call", id=self._id, method=method, args=args)
        except ThrownError as error:
            raise (LocalError(error.detail) if error.name == "LocalError" else error) from None

    def _look(self, name: str) -> tuple[int, ...]:
        return tuple(self._engine.call("look", id=self._id, property=name))

    @property
    def streams(self) -> tuple[int, ...]:
        return self._look("streams")

    @property
    def unanswered(self) -> tuple[int, ...]:
        return self._look("unanswered")

    def open(self, stream: int, service: str, bulk: bool = False) -> None:
        self._call("open", stream, service, bulk)

    def writable(self, stream: int) -> int:
        return int(self._call("writable", stream))

    def send(self, stream: int, data: bytes) -> None:
        self._call("send", stream, bytes(data).hex())

    def end(self, stream: int) -> None:
        self._call("end", stream)

    def reset(self, stream: int, code: ResetCode = ResetCode.CANCELLED) -> None:
        self._call("reset", stream, code)

    def consumed(self, stream: int, size: int) -> None:
        self._call("consumed", stream, size)

    def resume(self) -> None:
        self._call("resume")

    def ask(self, stream: int) -> None:
        self._call("ask", stream)

    def next_frame(self) -> bytes | None:
        made = self._engine.call("nextFrame", id=self._id)
        if made is None:
            return None
        frame = bytes.fromhex(made)
        header = parse(frame)
        assert self._made.setdefault((header.stream, header.number), frame) == frame
        return frame

    def receive(self, frame: bytes) -> list[Event]:
        try:
            events = self._engine.call("receive", id=self._id, frame=frame.hex())
        except ThrownError as error:
            codes = {"FrameError": ResetCode.PROTOCOL, "SealError": ResetCode.SEAL}
            if error.name == "MuxError":
                raise MuxError(ResetCode(error.code), error.detail) from None
            if error.name in codes:
                raise MuxError(codes[error.name], error.detail) from None
            raise
        return [_event(event) for event in events]


def _event(it: dict[str, Any]) -> Event:
    stream = it["stream"]
    match it["kind"]:
        case "data":
            return Data(stream, bytes.fromhex(it["data"]))
        case "reset":
            return Reset(stream, ResetCode(it["code"]), by_peer=it["byPeer"])
        case kind:
            plain: dict[str, type[Event]] = {
                "accepted": Accepted, "ended": Ended, "credited": Credited,
                "acknowledged": Acknowledged,
            }  # fmt: skip
            return plain[kind](stream)
