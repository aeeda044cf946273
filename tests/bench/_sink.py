"""Who receives: `python -m tests.bench._sink PORT TOPIC SIZE COUNT [FOLDER DEVICE]`.

Subscribes, over TLS as DEVICE or over plain TCP, prints `ready`, and when COUNT messages of SIZE
bytes on TOPIC have come, or none for SILENCE_S, prints how many came and the seconds from the first
to the last.
"""

import socket
import ssl
import sys
import time
from pathlib import Path

from tests.broker import raw

SILENCE_S = 2.0
FIRST_S = 60.0


def main(port: int, topic: str, size: int, count: int, tls: tuple[Path, str] | None) -> None:
    length = len(raw.publish(topic, b"x" * size))
    with socket.create_connection(("127.0.0.1", port), timeout=FIRST_S) as plain:
        taken = secured(plain, *tls) if tls else plain
        name, filter = (tls[1], f"pat/1/{tls[1]}/dn/#") if tls else ("bench-sink", "#")
        taken.sendall(raw.connect(name, keepalive=300) + raw.subscribe(filter))
        left = 9
        while left:
            left -= len(taken.recv(left))
        print("ready", flush=True)
        buffer = memoryview(bytearray(1 << 20))
        got = taken.recv_into(buffer)
        began = last = time.perf_counter()
        taken.settimeout(SILENCE_S)
        try:
            while got < count * length and (size_ := taken.recv_into(buffer)):
                got += size_
                last = time.perf_counter()
        except TimeoutError:
            pass  # the rest was lost
        print(got // length, last - began, flush=True)


def secured(plain: socket.socket, folder: Path, device: str) -> socket.socket:
    context = ssl.create_default_context(cafile=str(folder / "server-ca.pem"))
    context.load_cert_chain(folder / f"{device}.pem", folder / f"{device}.key")
    context.set_alpn_protocols(["mqtt"])
    return context.wrap_socket(plain, server_hostname="localhost")


if __name__ == "__main__":
    _, port_, topic_, size_, count_, *rest = sys.argv
    main(int(port_), topic_, int(size_), int(count_), (Path(rest[0]), rest[1]) if rest else None)
