"""`patency-agent`: the agent of an injector, and the commands of the person beside it.

Exit status of every command:

    0  done
    1  refused, or failed; the text says why
    2  wrong usage, or the state directory is not there or cannot be worked on
    3  no agent runs on this state directory
    4  the server cannot be reached
    5  the disk does not take it
    6  the server refused to enrol this injector
    7  the audit chain does not verify
    8  the doctor found what keeps this injector from connecting

With `-o json` the answer, or {"error": code, "detail": text}, is one JSON object on stdout.

Commands import what they need when they run: `status` and `approve` are for scripts, and quick.
"""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from agent import answers, control, i18n, logs, posix
from agent.drivers import Fault
from agent.errors import AgentError, StateError
from agent.i18n import _
from agent.options import command as _command
from agent.options import output as _output
from agent.options import session as _session
from agent.options import speak
from agent.options import state as _state
from agent.site_policy import site_policy

if TYPE_CHECKING:
    from agent.runtime import Part

BAD_CHAIN = 7
UNWELL = 8

_states = click.option(
    "--state",
    "states",
    required=True,
    multiple=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="A state directory; repeat it to serve several injectors.",
)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, with which an echo takes two thirds of the time; asyncio's own where there is none
    (Windows)."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def parts() -> "list[Part]":
    """The parts of the agent, in the order in which they are installed."""
    from agent import access, injector, jobs, renewal, streams

    return [
        injector.install, streams.install, access.install, jobs.install, renewal.install,
    ]  # fmt: skip


@click.group()
@click.version_option(package_name="patency")
@click.option(
    "--language",
    type=click.Choice(["en", "fr"]),
    help="Answer in this language; else in the injector's, else in that of LC_ALL or LANG.",
)
def main(language: str | None) -> None:
    """The agent of a connected contrast injector."""


main.add_command(site_policy)


@main.command()
@_states
def run(states: tuple[Path, ...]) -> None:
    """Serve one or more injectors until SIGTERM or SIGINT.

    An injector that is not enrolled yet enrols by itself. Logs go to stderr, one JSON object a
    line; PATENCY_LOG is debug, info, warning or error.
    """
    from agent.runtime import Agent
    from agent.supervisor import supervise

    logs.set_up()
    if len({state.resolve() for state in states}) != len(states):
        raise click.UsageError("A state directory is named twice.")
    plugged = parts()
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(supervise(states, lambda state: Agent(state, parts=plugged)))
    except AgentError as error:
        click.echo(str(error), err=True)
        sys.exit(error.exit_status)


@main.command()
@_state
@click.option(
    "--again",
    is_flag=True,
    help="With a new bundle for an injector that was revoked or moved: take a new key.",
)
@_output
@_command
def enrol(state: Path, again: bool) -> dict[str, Any]:
    """Enrol this injector with its provisioning bundle. `run` does so by itself."""
    from agent import enrolment

    posix.check_private_dir(state)
    with posix.only_process(state / "agent.lock"):
        identity = asyncio.run((enrolment.enrol_again if again else enrolment.enrol)(state))
    return {
        "device": identity.device,
        "serial": identity.provision.serial,
        "access_servers": [str(server) for server in identity.servers],
        "certificate_expires_at": identity.expires_at.isoformat(),
    }


@main.command()
@_state
@_output
@_command
def status(state: Path) -> dict[str, Any]:
    """Show connection, access server, clinical state, outbox and certificate."""
    return control.call(state, "status", language=i18n.language())


@main.command()
@_state
@_command
def panel(state: Path) -> None:
    """Open the panel: who asks for access, Approve, Refuse, Stop."""
    from agent import panel as screen

    control.check(state)
    screen.run(state)


@main.command()
@_state
@_session
@click.option("--pin", prompt=True, hide_input=True, help="An approver's PIN.")
@click.option(
    "--for-ticket", "hours", type=click.IntRange(1, 8), help="Hours of consent to its ticket."
)
@_output
@_command
def approve(state: Path, session: str | None, pin: str, hours: int | None) -> dict[str, Any]:
    """Approve the session that waits at this injector."""
    return control.call(state, "approve", pin=pin, session=session, ticket_h=hours)


@main.command()
@_state
@_session
@click.option("--pin", help="An approver's PIN, where one is asked for.")
@_output
@_command
def refuse(state: Path, session: str | None, pin: str | None) -> dict[str, Any]:
    """Refuse the session that waits at this injector."""
    return control.call(state, "refuse", pin=pin, session=session)


@main.command()
@_state
@_session
@_output
@_command
def stop(state: Path, session: str | None) -> dict[str, Any]:
    """Stop the session that is active, at once."""
    return control.call(state, "stop", session=session)


@main.command()
@_state
@click.option("--fault", required=True, type=click.Choice([fault.value for fault in Fault]))
@_output
@_command
def simulate(state: Path, fault: str) -> dict[str, Any]:
    """Inject a fault into a simulated injector; `idle` clears all."""
    return control.call(state, "simulate", fault=fault)


@main.command("no-patient")
@_state
@_output
@_command
def no_patient(state: Path) -> dict[str, Any]:
    """Declare that no patient is connected: the injector goes to `service`."""
    return control.call(state, "no-patient")


@main.command()
@click.argument("switch", type=click.Choice(["on", "off"]))
@_state
@click.option("--pin", help="An approver's PIN; switching on needs one.")
@_output
@_command
def remote(state: Path, switch: str, pin: str | None) -> dict[str, Any]:
    """Switch remote connection off, or on again, which only this injector can."""
    if switch == "off":
        return control.call(state, "remote-off")
    return control.call(state, "remote-on", pin=pin)


@main.command()
@click.argument("changes", nargs=-1, metavar="[NAME=VALUE]...")
@_state
@click.option("--pin", help="An approver's PIN; a change needs one, and asks for it.")
@_output
@_command
def policy(state: Path, changes: tuple[str, ...], pin: str | None) -> dict[str, Any]:
    """Show the site's policy, or set fields of it: docs/access.md has them all."""
    if not changes:
        return control.call(state, "policy")
    fields = dict(_field(change) for change in changes)
    if pin is None:
        pin = _secret(_("PIN of an approver"))
    return control.call(state, "policy-set", policy=fields, pin=pin)


def _field(change: str) -> tuple[str, Any]:
    name, equals, value = change.partition("=")
    if not (name and equals and value):
        raise click.UsageError(
            _("{text} is no change: write it as approval_wait_s=120.").format(text=repr(change))
        )
    words: dict[str, Any] = {"true": True, "yes": True, "false": False, "no": False}
    return name, int(value) if value.isdecimal() else words.get(value, value)


@main.command()
@_state
@click.option("--approver", type=click.IntRange(1, 99), default=1, show_default=True)
@click.option("--pin", prompt=True, hide_input=True, confirmation_prompt=True)
@click.option("--specialist", help="Their id on the roster, if they are on it.")
@_output
@_command
def pin(state: Path, approver: int, pin: str, specialist: str | None) -> dict[str, Any]:
    """Set the PIN of an approver, who is known by number alone. The agent must run."""
    return control.call(state, "pin-set", approver=approver, pin=pin, specialist=specialist)


@main.command()
@click.argument("address", required=False, metavar="[HOST:PORT|off]")
@click.option("--user", help="For a proxy that asks; the password is read from the terminal.")
@_state
@_output
@_command
def proxy(state: Path, address: str | None, user: str | None) -> dict[str, Any]:
    """Show the site's proxy, set it, or do without one. The password is never shown.

    It works whether or not the agent runs. The password is read without being shown, or as the
    first line of standard input where that is no terminal.
    """
    if address is None:
        return _site(state, {})
    change: dict[str, Any] = {"proxy": None if address == "off" else address}
    if user is not None:
        change |= {"user": user, "password": _secret(_("Password of the proxy"))}
    return _site(state, change)


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("rate", required=False, metavar="[BYTES_PER_SECOND|off]")
@_state
@_output
@_command
def bandwidth(state: Path, rate: str | None) -> dict[str, Any]:
    """Show, set or lift the cap on what this injector sends. Works without the agent, too."""
    from agent.network.settings import LEAST_CAP, MOST_CAP

    if rate is None:
        return _site(state, {})
    if rate != "off" and not rate.isdecimal():
        raise StateError(
            _("A cap is a number of bytes a second from {least} to {most}, or off.").format(
                least=LEAST_CAP, most=MOST_CAP
            )
        )
    return _site(state, {"up_bytes_s": None if rate == "off" else int(rate)})


@main.command()
@_state
@_output
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the page for the hospital's files, in English and French, to this file.",
)
def doctor(state: Path, output: str, report: Path | None) -> None:
    """Find out what keeps this injector from connecting, and what to do about it.

    With or without a running agent. What it finds stays here: nothing of it is sent up.
    """
    from agent.doctor import examination
    from agent.doctor import report as written
    from agent.panel import contacts

    speak(state)
    try:
        found = examination.examine(state)
        if report is not None:
            _keep(report, written.page(found, contacts.load(state)))
    except AgentError as error:
        answers.fail(error, output)
        return
    if output == "json":
        answers.show(written.as_json(found), output)
    else:
        click.echo(written.as_text(found))
    if not found.ok:
        sys.exit(UNWELL)


def _keep(path: Path, text: str) -> None:
    try:
        posix.write_private(path, text.encode())
    except OSError as error:
        raise StateError(
            _("{path} cannot be written: {error}.").format(path=path, error=error.strerror)
        ) from error


def _site(state: Path, change: dict[str, Any]) -> dict[str, Any]:
    from agent.network import site

    return site.change(state, change)


def _secret(prompt: str) -> str:
    if sys.stdin.isatty():
        return str(click.prompt(prompt, hide_input=True, err=True))
    return sys.stdin.readline(1024).rstrip("\r\n")


@main.group()
def audit() -> None:
    """The audit chain of this injector."""


@audit.command()
@_state
@click.option(
    "--head",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A signed head as the server holds it (JSON): finds entries cut off the end.",
)
@_output
@_command
def verify(state: Path, head: Path | None) -> dict[str, Any]:
    """Check every link of the chain, whether or not the agent runs. Status 7 if one is bad."""
    from agent import audit as audit_log
    from agent.wire.messages import SignedHead

    signed = None
    if head is not None:
        try:
            signed = msgspec.json.decode(head.read_bytes(), type=SignedHead)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise StateError(
                _("{path} holds no signed head: {error}.").format(path=head, error=error)
            ) from error
    verdict = audit_log.verify(state / "agent.db", head=signed)
    if not verdict.good:
        raise BadChain(_("The audit chain is broken at entry {index}.").format(index=verdict.bad))
    return {"good": True, "entries": verdict.entries, "head": verdict.head}


class BadChain(AgentError):
    code = "bad_chain"
    exit_status = BAD_CHAIN


@main.command()
@_states
def console(states: tuple[Path, ...]) -> None:
    """Serve the contained console and status page of simulated injectors, on loopback."""
    from agent import console as served

    logs.set_up()
    try:
        served.run(list(states))
    except AgentError as error:
        answers.fail(error, "text")
