"""A TCP relay in front of the portal that keeps what passes, with websocket masks taken off."""

import socket
import threading
from types import TracebackType


class Tap:
    """`with Tap(port) as tap:` and use `tap.url`; afterwards `tap.payload("client"|"portal")`."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.frames: list[tuple[str, bytearray]] = []
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> "Tap":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listener.close()
        for sock in self._sockets:
            sock.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            portal = socket.create_connection(self._target, timeout=10)
            portal.settimeout(None)
            self._sockets += [client, portal]
            for side, source, sink in (("client", client, portal), ("portal", portal, client)):
                kept = bytearray()
                self.frames.append((side, kept))
                threading.Thread(target=self._pump, args=(source, sink, kept), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket, kept: bytearray) -> None:
        try:
            while data := source.recv(65536):
                kept += data
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def payload(self, side: str) -> bytes:
        """All bytes one side sent over websockets, headers dropped and masks removed."""
        return b"".join(_unmask(bytes(kept)) for name, kept in self.frames if name == side)


def _unmask(raw: bytes) -> bytes:
    head, _, rest = raw.partition(b"\r\n\r\n")
    if b"websocket" not in head.lower():
        return b""
    out, at = [], 0
    while at + 2 <= len(rest):
        masked, length = rest[at + 1] & 0x80, rest[at + 1] & 0x7F
        at += 2
        if length >= 126:
            width = 2 if length == 126 else 8
            length = int.from_bytes(rest[at : at + width], "big")
            at += width
        mask = rest[at : at + 4] if masked else b""
        at += 4 if masked else 0
        data = rest[at : at + length]
        if mask:
            stream = (mask * (len(data) // 4 + 1))[: len(data)]
            data = (int.from_bytes(data, "big") ^ int.from_bytes(stream, "big")).to_bytes(
                len(data), "big"
            )
        out.append(data)
        at += length
    return b"".join(out)
