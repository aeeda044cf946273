"""Thousands of devices that lose their gate at once."""

from pathlib import Path

import psutil

from tests.bench.devices import child, line
from tests.faults import experiment
from tests.scale import scaled
from tests.tls import Authority


@experiment(
    "crowd",
    fault="5,000 devices reconnect at once",
    must="all back ≤ 5 minutes, no memory blow-up",
)
def crowd(folder: Path) -> str:
    count = scaled(5000)
    authority = Authority()
    authority.write(folder)
    for number in range(count):
        authority.device(f"bench-{number:05}").write(folder, f"bench-{number:05}")
    with child("_gate", folder, 0) as gate:
        port = int(line(gate.stdout))
        empty = psutil.Process(gate.pid).memory_info().rss
        with child("_crowd", port, folder, count, 1) as devices:
            line(devices.stdout)
            full = psutil.Process(gate.pid).memory_info().rss
            gate.kill()
            gate.wait()
            with child("_gate", folder, port) as again:
                line(again.stdout)
                back = float(line(devices.stdout))
                after = psutil.Process(again.pid).memory_info().rss
    assert back <= 300
    # As many connections may not cost a gate that is stormed much more than one that filled slowly.
    assert after <= full * 1.5 + 20e6
    return (
        f"{count:,} TLS clients, the gate killed and started again: all back after {back:.0f} s (on"
        f" the same cores); the gate held {empty / 1e6:.0f} MB empty, {full / 1e6:.0f} MB before,"
        f" {after / 1e6:.0f} MB after"
    )
