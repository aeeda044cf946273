"""`patency access-origin`: serve the browser client, or take its files to a static host."""

import json
import signal
import threading
from pathlib import Path
from typing import Any

import click

from fleet.client import origin, output
from fleet.client.errors import ClientError, Exit
from fleet.client.i18n import _

_PORTAL = click.option("--portal", required=True, help="The portal's address, as browsers open it.")
_ROOT = click.option(
    "--device-root",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The root certificate of the injectors (PEM), from its keeper.",
)


@click.group("access-origin")
def access_origin() -> None:
    """The browser client, on an origin of its own: never the portal's."""


def _address(_ctx: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, int]:
    host, colon, port = value.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise click.BadParameter(_("write it as 127.0.0.1:8001"))
    return host.strip("[]"), int(port)


@access_origin.command("serve")
@click.option("--listen", default="127.0.0.1:8001", show_default=True, callback=_address)
@_PORTAL
@_ROOT
def serve(listen: tuple[str, int], portal: str, device_root: Path) -> None:
    """Serve the client's files until SIGINT or SIGTERM; put TLS in front of it."""
    server = origin.server(listen, origin.Site(portal, device_root))
    host, port = server.server_address[:2]
    shown = host if isinstance(host, str) else host.decode()

    def stop(*_: Any) -> None:
        threading.Thread(target=server.shutdown).start()  # it waits for serve_forever to end

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    output.note(_("The browser client is at http://{address}/").format(address=f"{shown}:{port}"))
    with server:
        server.serve_forever(poll_interval=0.2)


@access_origin.command("export")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@_PORTAL
@_ROOT
def export(folder: Path, portal: str, device_root: Path) -> None:
    """Write into FOLDER what a static host has to serve, and print the headers that go with it."""
    if folder.exists() and any(folder.iterdir()):
        raise ClientError(
            _("{folder} is not empty. Name one that is, or remove it first.").format(folder=folder),
            Exit.USAGE,
        )
    origin.export(folder, portal, device_root)
    for name, value in origin.headers(portal).items():
        click.echo(f"{name}: {value}")


@access_origin.command("hashes")
@click.option("-o", "form", type=click.Choice(["text", "json"]), default="text")
def hashes(form: str) -> None:
    """SHA-256 of every file of the client: in hexadecimal digits, and as browsers write it."""
    found = origin.hashes()
    if form == "json":
        click.echo(json.dumps(found, indent=1))
    else:
        for name, digest in found.items():
            click.echo(f"{digest}  {origin.sri(digest)}  {name}")
