"""How the gate is set up, and every bound it keeps."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from agent.wire.messages import MAX_PAYLOAD
from broker.acl import Identity

MIB = 1024 * 1024
Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds, by name: seconds end in `_s`, bytes in `_bytes`; the rest are counts."""

    # before a device is known
    backlog: int = 1024  # connections the kernel holds for us
    arrivals: int = 4096  # sockets accepted whose handshake is not done
    handshakes: int = 256  # at the same time
    handshake_fair_s: float = 3.0  # after this a handshake gives way when others wait
    hello_s: float = 5.0
    # From accept to CONNECT, not counting the wait for a place. The promise is 10 s; the rest is
    # for a timer that comes late on a busy machine.
    connect_s: float = 9.0
    place_s: float = 30.0  # wait for a place among the handshakes
    shutdown_s: float = 2.0  # to flush and say goodbye
    # one connection
    payload_bytes: int = MAX_PAYLOAD
    keepalive_most_s: int = 300
    keepalive_factor: float = 1.5
    packet_s: float = 120.0  # for one packet to arrive whole: 512 KiB at 64 kbit/s take 64 s
    broker_s: float = 5.0  # for amqtt to answer
    filters: int = 16
    unacked: int = 64  # QoS 1 messages taken or waiting and not acknowledged
    unacked_bytes: int = MIB
    messages_per_s: float = 1000.0  # sustained; stream frames do not count
    messages_burst: int = 2000
    outgoing_bytes: int = 4 * MIB  # more than this unsent: the reader has stopped
    outgoing_high_bytes: int = (
        64 * 1024
    )  # in the transport; stream frames beyond it wait their turn
    stalled_s: float = 60.0  # full for so long: the reader has stopped
    notsent_bytes: int = 64 * 1024  # TCP_NOTSENT_LOWAT


@dataclass(frozen=True, slots=True, kw_only=True)
class GateOptions:
    """Where the gate listens, what it shows and whom it believes.

    Connections from `proxies` must begin with a PROXY header; no others may.
    `device_ca` are PEM files of the device root and its intermediates and of nothing else.
    `admit` may refuse an identity that TLS has verified (the deny-list): False closes.
    """

    host: str
    port: int  # 0 takes a free one; see Gate.port
    certificate: Path  # PEM: the server's certificate and its chain
    key: Path
    device_ca: tuple[Path, ...]
    limits: Limits = field(default_factory=Limits)
    proxies: tuple[Network, ...] = ()
    admit: Callable[[Identity], bool] = lambda identity: True
    # Called on the loop when a device's connection takes stream frames again (see Gate.congested).
    drained: Callable[[str], None] = lambda device: None
    wall_clock: Callable[[], float] = time.time  # seconds since 1970
