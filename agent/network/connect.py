"""HTTP CONNECT from the client's side, without IO: bytes to send, bytes that came, one answer.

RFC 9110 section 9.3.6 and RFC 7617. After an answer of 2xx the tunnel begins with its next byte,
and TLS lets the client speak first: bytes behind such an answer are a fault, not the server's.
"""

import base64
from dataclasses import dataclass

MAX_HEAD = 16 * 1024  # bytes of the answer up to its empty line, interim answers included
MAX_SHOWN = 64  # characters of a header that are kept
_END = b"\r\n\r\n"
_PREFIX = b"HTTP/1."


class BadAnswer(Exception):
    """The proxy's answer breaks HTTP, or is too long. The text is for a log."""


@dataclass(frozen=True, slots=True)
class Answer:
    """`schemes` are those of Proxy-Authenticate, in lower case; `date` is the header as it came."""

    status: int
    schemes: tuple[str, ...] = ()
    date: str = ""

    @property
    def open(self) -> bool:
        return 200 <= self.status < 300


def request(host: str, port: int, user: str | None = None, password: str | None = None) -> bytes:
    """What to send. With `user`, credentials (Basic, UTF-8) go along.

    Raises ValueError for a host or a user that cannot be written into it.
    """
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if not authority.isascii() or any(c <= " " or c == "\x7f" for c in authority):
        raise ValueError("the host cannot be written into a request")
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
    if user is not None:
        if ":" in user:
            raise ValueError("a user name with a colon cannot be sent")
        token = base64.b64encode(f"{user}:{password or ''}".encode()).decode()
        lines.append(f"Proxy-Authorization: Basic {token}")
    return "\r\n".join([*lines, "", ""]).encode()


class Reader:
    """Feed it what comes; it gives the answer once it is whole."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._read = 0

    def feed(self, data: bytes) -> Answer | None:
        """Raises BadAnswer; after that, and after the answer, it is of no more use."""
        self._held += data
        while True:
            self._check_start()
            end = self._held.find(_END)
            if end < 0:
                if self._read + len(self._held) > MAX_HEAD:
                    raise BadAnswer("the answer is too long")
                return None
            head = bytes(self._held[:end])
            del self._held[: end + len(_END)]
            self._read += end + len(_END)
            if self._read > MAX_HEAD:
                raise BadAnswer("the answer is too long")
            answer = _parse(head)
            if answer.status >= 200:
                if answer.open and self._held:
                    raise BadAnswer("bytes before the tunnel's own")
                return answer

    def _check_start(self) -> None:
        """What is no HTTP is known by its first bytes, not when its time is up."""
        start = bytes(self._held[: len(_PREFIX)])
        if not _PREFIX.startswith(start):
            raise BadAnswer("the answer is no HTTP")


def _parse(head: bytes) -> Answer:
    first, *lines = head.decode("latin-1").split("\r\n")
    version, _space, rest = first.partition(" ")
    status = rest[:3]
    if (
        version not in ("HTTP/1.1", "HTTP/1.0")
        or not (len(status) == 3 and status.isascii() and status.isdigit() and status >= "100")
        or rest[3:4] not in ("", " ")
    ):
        raise BadAnswer("the answer has no status line")
    schemes: list[str] = []
    date = ""
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise BadAnswer("a header without a colon")
        if name.lower() == "proxy-authenticate":
            schemes.append(_token(value))
        elif name.lower() == "date":
            date = value.strip()[:MAX_SHOWN]
    return Answer(int(status), tuple(schemes[:8]), date)


def _token(value: str) -> str:
    """The first word, of what a token is made of (RFC 9110 section 5.6.2, less than all of it)."""
    word = (value.split() or [""])[0]
    return "".join(c for c in word if c.isascii() and (c.isalnum() or c in "-_"))[
        :MAX_SHOWN
    ].lower()
