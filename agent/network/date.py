"""What time the vendor's server has, for an injector whose own clock may be wrong.

Asked for at the enrolment server, without a certificate and without saying who asks, over a
connection that is ours in everything but the dates of the server's certificate. The answer is only
ever compared with our clock: it decides words and nothing else. Blocking.
"""

import email.utils
from typing import Any

from agent import identity
from agent.identity import Provision
from agent.network.journey import AS_ANYBODY, Astray, Journey, Ready
from agent.network.route import Route
from agent.network.settings import Proxy

ATTEMPT_S = 8.0  # name, TCP, proxy and TLS together
ANSWER_S = 5.0
MAX_HEAD = 16 * 1024
_NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME


def served(
    provision: Provision, proxy: Proxy | None, *, timeout_s: float = ATTEMPT_S, **seams: Any
) -> float | None:
    """Seconds since 1970; None when no server of ours says. `seams` are the journey's."""
    server = provision.enrol
    context = identity.pinned_context(provision.anchors)
    context.verify_flags |= _NO_CHECK_TIME
    try:
        ready = Journey(
            Route(server, proxy=proxy), context, timeout_s, alpn=AS_ANYBODY, **seams
        ).travel()
    except Astray:
        return None
    try:
        ready.settimeout(min(ANSWER_S, timeout_s))
        ready.send(f"HEAD / HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n".encode())
        return _date(_head(ready))
    except OSError:
        return None
    finally:
        ready.close()


def _head(ready: Ready) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head and len(head) < MAX_HEAD:
        chunk = ready.recv(4096)
        if not chunk:
            break
        head += chunk
    return head


def _date(head: bytes) -> float | None:
    for line in head.split(b"\r\n"):
        name, _colon, value = line.partition(b":")
        if name.lower() == b"date":
            try:
                return email.utils.parsedate_to_datetime(
                    value.decode("latin-1").strip()
                ).timestamp()
            except (ValueError, OverflowError):
                return None
    return None
