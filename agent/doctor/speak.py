"""The first words of MQTT 3.1.1, as the doctor says them: CONNECT, its answer, goodbye.

The device's own agent, if it runs, would be put out by a second CONNECT of the same name; beside
one the doctor only listens whether the server puts up with the certificate.
"""

import errno

from agent.network.findings import Failure
from agent.network.journey import Ready, tls_failure

KEEPALIVE_S = 10
DISCONNECT = b"\xe0\x00"
_CONNACK = b"\x20\x02"


def connect(device: str) -> bytes:
    """CONNECT with a clean session (section 3.1)."""
    name = device.encode()
    body = b"\x00\x04MQTT\x04\x02" + KEEPALIVE_S.to_bytes(2) + len(name).to_bytes(2) + name
    return bytes((0x10, len(body))) + body  # a device id has at most 64 characters


def greet(ready: Ready, device: str) -> tuple[Failure, str, str] | None:
    """Say CONNECT and goodbye; None when the server accepts, else how it ended: failure, TLS alert,
    detail. The socket's timeout holds for each step."""
    try:
        ready.send(connect(device))
        answer = b""
        while len(answer) < 4:
            chunk = ready.recv(4 - len(answer))
            if not chunk:
                return Failure.CUT, "", ""
            answer += chunk
        if answer[:2] != _CONNACK:
            return Failure.PROTOCOL, "", ""
        if answer[3]:
            return Failure.CODE, "", f"CONNACK {answer[3]}"
        ready.send(DISCONNECT)
    except OSError as error:
        return _ended(error)
    return None


def listen(ready: Ready) -> tuple[Failure, str, str] | None:
    """Say nothing for as long as the socket's timeout; None when the server bears with it."""
    try:
        if not ready.recv(1):
            return Failure.CUT, "", ""
    except TimeoutError:
        return None
    except OSError as error:
        return _ended(error)
    return Failure.PROTOCOL, "", ""  # a server never speaks first


def _ended(error: OSError) -> tuple[Failure, str, str]:
    failure, alert = tls_failure(error)
    return failure, alert, errno.errorcode.get(error.errno or 0, "")
