"""A device as fast as OpenSSL lets it be, in a process of its own.

`python -m tests.bench._sender PORT FOLDER DEVICE SIZE COUNT WRITE` connects, publishes COUNT
messages of SIZE bytes at QoS 0, as many in one write as fit WRITE bytes, then PINGREQ, and prints
the seconds until PINGRESP: everything has been read.
"""

import socket
import ssl
import sys
import time
from pathlib import Path

from tests.broker import raw


def main(port: int, folder: Path, device: str, size: int, count: int, write: int) -> None:
    context = ssl.create_default_context(cafile=str(folder / "server-ca.pem"))
    context.load_cert_chain(folder / f"{device}.pem", folder / f"{device}.key")
    context.set_alpn_protocols(["mqtt"])
    lane = "s" if size > 1000 else "event/1"
    packet = raw.publish(f"pat/1/{device}/up/{lane}", b"x" * size)
    batch = max(1, write // len(packet))
    with (
        socket.create_connection(("localhost", port), timeout=120) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as tls,
    ):
        tls.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        tls.sendall(raw.connect(device))
        assert tls.recv(4) == b"\x20\x02\0\0"
        began = time.perf_counter()
        for _ in range(count // batch):
            tls.sendall(packet * batch)
        tls.sendall(packet * (count % batch) + raw.PINGREQ)
        assert tls.recv(2) == b"\xd0\0"
        print(time.perf_counter() - began)


if __name__ == "__main__":
    size_, count_, write_ = map(int, sys.argv[4:7])
    main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], size_, count_, write_)
