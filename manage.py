#!/usr/bin/env python
"""The portal's command line."""

import argparse
import contextlib
import os
import socket
import sys
from pathlib import Path


def _up_options(arguments: list[str]) -> None:
    """`up` takes its data directory and addresses as options; settings read the environment."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--demo", action="store_true")
    parser.add_argument("--only")
    names = {
        "data": "PATENCY_DATA",
        "http": "PATENCY_HTTP",
        "mqtt": "PATENCY_MQTT",
        "link": "PATENCY_LINK",
        "metrics": "PATENCY_METRICS",
    }
    for name in names:
        parser.add_argument(f"--{name}")
    known, _rest = parser.parse_known_args(arguments)
    for name, variable in names.items():
        value = getattr(known, name)
        if value:
            os.environ[variable] = value
    _choose_ports(["PATENCY_HTTP", "PATENCY_MQTT", "PATENCY_METRICS", "PATENCY_ACCESS"])
    if known.only == "gate":
        os.environ.setdefault("PATENCY_SECRET", "no cookies here")  # leaves no file either
    if known.demo:
        demo = Path(__file__).resolve().parent / "var" / "demo"
        os.environ.setdefault("PATENCY_DATA", str(demo))
        # The browser client beside the portal: another port is another origin.
        port = os.environ.setdefault("PATENCY_ACCESS", "127.0.0.1:8001").rpartition(":")[2]
        os.environ.setdefault("PATENCY_ACCESS_ORIGIN", f"http://localhost:{port}")


def _choose_ports(variables: list[str]) -> None:
    """Port 0 is any free one. Chosen here, since origins, cookies and injectors depend on it."""
    with contextlib.ExitStack() as held:  # so that no two get the same
        for variable in variables:
            host, _colon, port = os.environ.get(variable, "").strip().rpartition(":")
            if port != "0" or not host:
                continue
            family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
            probe = held.enter_context(socket.socket(family))
            try:
                probe.bind((host.strip("[]"), 0))
            except OSError:
                continue  # whoever listens there says what is wrong
            os.environ[variable] = f"{host}:{probe.getsockname()[1]}"


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fleet.settings")
    if sys.argv[1:2] == ["up"]:
        _up_options(sys.argv[2:])
    if sys.argv[1:2] == ["access-server"]:
        sys.argv[1] = "access_server"  # Django names commands after modules
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
