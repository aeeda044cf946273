"""Who sends, as fast as OpenSSL lets it: `python -m tests.bench._sender PORT TOPIC SIZE COUNT WRITE
[FOLDER DEVICE]`.

Connects, over TLS as DEVICE or over plain TCP, publishes COUNT messages of SIZE bytes at QoS 0, as
many in one write as fit WRITE bytes, then PINGREQ, and prints the seconds until PINGRESP:
everything has been read.
"""

import contextlib
import socket
import sys
import time
from pathlib import Path

from tests.bench._sink import secured
from tests.broker import raw


def main(
    port: int, topic: str, size: int, count: int, write: int, tls: tuple[Path, str] | None
) -> None:
    packet = raw.publish(topic, b"x" * size)
    batch = max(1, write // len(packet))
    with contextlib.ExitStack() as stack:
        used = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=120))
        used.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            used = stack.enter_context(secured(used, *tls))
        used.sendall(raw.connect(tls[1] if tls else "bench-sender"))
        assert used.recv(4) == b"\x20\x02\0\0"
        began = time.perf_counter()
        for _ in range(count // batch):
            used.sendall(packet * batch)
        used.sendall(packet * (count % batch) + raw.PINGREQ)
        assert used.recv(2) == b"\xd0\0"
        print(time.perf_counter() - began)


if __name__ == "__main__":
    _, port_, topic_, size_, count_, write_, *rest = sys.argv
    main(
        int(port_), topic_, int(size_), int(count_), int(write_),
        (Path(rest[0]), rest[1]) if rest else None,
    )  # fmt: skip
