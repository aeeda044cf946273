"""A service on loopback, and its user, for the bench of streams: `python -m … PORT`.

A connection begins with a line: `sink N` reads N bytes and answers `done`, `source N` sends N
bytes, `echo` sends everything back.
"""

import socket
import sys
import threading
import time

_PIECE = 256 * 1024


def _serve(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection:
        line = b""
        while not line.endswith(b"\n"):
            if not (byte := connection.recv(1)):
                return
            line += byte
        words = line.split()
        if words[0] == b"sink":
            _read(connection, int(words[1]))
            connection.sendall(b"done")
        elif words[0] == b"source":
            _write(connection, int(words[1]))
        else:
            while data := connection.recv(65536):
                connection.sendall(data)


def _read(connection: socket.socket, left: int) -> None:
    buffer = bytearray(_PIECE)
    while left:
        got = connection.recv_into(buffer, min(left, _PIECE))
        if not got:
            raise ConnectionError(f"{left} bytes are missing")
        left -= got


def _write(connection: socket.socket, left: int) -> None:
    block = bytes(_PIECE)
    while left:
        size = min(left, _PIECE)
        connection.sendall(block[:size] if size < _PIECE else block)
        left -= size


def main(port: int) -> None:
    with socket.create_server(("127.0.0.1", port)) as listener:
        print("ready", flush=True)
        while True:
            connection, _address = listener.accept()
            threading.Thread(target=_serve, args=(connection,), daemon=True).start()


# --- whoever uses it ---------------------------------------------------------------------------


def _dial(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=120)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def towards(port: int, size: int) -> float:
    """Bytes a second that the service takes."""
    with _dial(port) as connection:
        began = time.perf_counter()
        connection.sendall(f"sink {size}\n".encode())
        _write(connection, size)
        assert connection.recv(4) == b"done"
        return size / (time.perf_counter() - began)


def away(port: int, size: int) -> float:
    """Bytes a second that come from the service."""
    with _dial(port) as connection:
        began = time.perf_counter()
        connection.sendall(f"source {size}\n".encode())
        _read(connection, size)
        return size / (time.perf_counter() - began)


def echoes(port: int, count: int, pause_s: float) -> list[float]:
    """Seconds of each of so many exchanges of 64 bytes."""
    with _dial(port) as connection:
        connection.sendall(b"echo\n")
        found, word = [], b"k" * 64
        for _ in range(count + 20):
            began = time.perf_counter()
            connection.sendall(word)
            got = b""
            while len(got) < len(word):
                got += connection.recv(len(word))
            found.append(time.perf_counter() - began)
            time.sleep(pause_s)
        return found[20:]


if __name__ == "__main__":
    main(int(sys.argv[1]))
