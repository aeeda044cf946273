"""`patency-agent site-policy`: the hospital's signed policy, brought to the injector as a file."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from agent import control, options
from agent.errors import ControlError, StateError
from agent.i18n import _

_MAX_BYTES = 64 * 1024


@click.command("site-policy")
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
@options.state
@click.option("--accept", is_flag=True, help="Let the policy that waits hold; needs a PIN.")
@click.option("--decline", is_flag=True, help="Drop the policy that waits.")
@click.option("--fingerprint", help="Of the hospital's key, as its IT gave it; else it is asked.")
@click.option("--pin", help="An approver's PIN; else it is asked.")
@options.output
@options.command
def site_policy(
    state: Path,
    file: Path | None,
    accept: bool,
    decline: bool,
    fingerprint: str | None,
    pin: str | None,
) -> dict[str, Any]:
    """Show the hospital's policy, or bring its signed FILE to this injector.

    One that only tightens what holds is in force at once; any other, and the first by a new key,
    waits for --accept.
    """
    shown = control.call(state, "site-policy")
    if file is not None:
        shown = control.call(state, "site-policy-offer", document=_read(file))
    if decline:
        return control.call(state, "site-policy-decline")
    return _accept(state, shown["waiting"], fingerprint, pin) if accept else shown


def _accept(
    state: Path, waiting: dict[str, Any] | None, fingerprint: str | None, pin: str | None
) -> dict[str, Any]:
    if waiting is None:
        raise ControlError("no_site_policy", _("No policy waits at this injector."))
    if fingerprint is None:
        _have_it_compared(waiting)
    elif fingerprint.strip().lower() != waiting["fingerprint"]:
        raise ControlError(
            "fingerprint",
            _("The policy that waits is signed by another key: {fingerprint}.").format(
                fingerprint=waiting["fingerprint"]
            ),
        )
    if pin is None:
        pin = click.prompt(_("PIN of an approver"), hide_input=True, err=True)
    return control.call(state, "site-policy-accept", digest=waiting["digest"], pin=pin)


def _have_it_compared(waiting: dict[str, Any]) -> None:
    if not sys.stdin.isatty():
        raise StateError(_("Give the fingerprint of the hospital's key with --fingerprint."))
    click.echo(waiting["fingerprint"], err=True)
    if waiting["loosens"]:
        click.echo(_("It loosens: {fields}").format(fields=", ".join(waiting["loosens"])), err=True)
    question = _("Is this the fingerprint that the hospital's IT gave you?")
    if not click.confirm(question, err=True):
        raise ControlError("fingerprint", _("Nothing was accepted."))


def _read(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return json.loads(file.read(_MAX_BYTES))
    except OSError as error:
        raise StateError(
            _("{path} cannot be read: {why}.").format(path=path, why=error.strerror)
        ) from error
    except ValueError as error:
        raise StateError(
            _("{path} is no signed site policy: it is not JSON.").format(path=path)
        ) from error
