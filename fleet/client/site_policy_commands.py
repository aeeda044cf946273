"""`patency site-policy`: what a hospital's IT does with its own key."""

from pathlib import Path

import click

from agent.wire import site_policy as wire
from fleet.client import output, site_policy, trust

_FOLDER = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group("site-policy")
def group() -> None:
    """The hospital's own policy for its injectors, signed by the hospital's own key."""


@group.command("new")
@click.argument("folder", type=_FOLDER)
def new(folder: Path) -> None:
    """Make the hospital's key in FOLDER and print its fingerprint, for people at the panels."""
    click.echo(wire.fingerprint(site_policy.new(folder)))


@group.command("sign")
@click.argument("file", type=_FILE)
@click.option(
    "--site",
    "folder",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The site folder, which has the key.",
)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Default: stdout.")
def sign(file: Path, folder: Path, out: Path | None) -> None:
    """Sign the policy in FILE (JSON), as the next version."""
    signed = site_policy.sign(folder, site_policy.read(file))
    if out:
        trust.write(out, signed)
    else:
        output.data(signed)


@group.command("show")
@click.argument("file", type=_FILE)
def show(file: Path) -> None:
    """What a signed FILE says, and the fingerprint of the key that signed it."""
    output.data(site_policy.show(file))
