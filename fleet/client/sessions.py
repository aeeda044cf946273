"""The commands of a session: request, answer, forward, shell, ticket, end, audit."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import msgspec

from agent.wire.catalogue import Level, RequestReason, SessionState
from agent.wire.messages import Note, ServiceName, Ticket
from fleet.client import advice, output, profile, words
from fleet.client.access import FIRST_WAIT_S, Access, Outcome
from fleet.client.carrier import Carrier
from fleet.client.errors import Exit
from fleet.client.forward import Forward
from fleet.client.i18n import _, gettext_noop
from fleet.client.portal import JSON, Portal
from fleet.client.profile import Asked, Profile, Sessions
from fleet.client.shell import shell as run_shell
from fleet.client.tunnel import Carrying, carry, run

_ACTIVE = {SessionState.ACTIVE.value}
_OPEN = {state.value for state in SessionState if not state.over}
_form = click.option(
    "-o", "form", type=click.Choice(["text", "json"]), default="text", help="Output format."
)
_session_option = click.option("--session", help="The session's id, instead of TARGET.")


class _Duration(click.ParamType[int]):
    name = "duration"

    def __init__(self, low_s: int, high_s: int) -> None:
        self._low_s, self._high_s = low_s, high_s

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        if isinstance(value, int):
            return value
        try:
            taken = words.seconds(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if not self._low_s <= taken <= self._high_s:
            self.fail(
                _("{value} is not within {low}s and {high}s").format(
                    value=value, low=self._low_s, high=self._high_s
                ),
                param,
                ctx,
            )
        return taken


class _Fits(click.ParamType[str]):
    """Text that the wire's schema takes; refused here, before anything is sent."""

    def __init__(self, kind: Any, name: str, rule: str) -> None:
        self.name = name
        self._kind = kind
        self._rule = rule

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        try:
            text: str = msgspec.convert(value, self._kind)
        except msgspec.ValidationError:
            self.fail(_(self._rule), param, ctx)
        return text


_SERVICE = _Fits(
    ServiceName,
    "service",
    gettext_noop("a service is lower-case letters, digits and hyphens"),
)
_TICKET = _Fits(Ticket, "ticket", gettext_noop("a ticket is 1 to 32 letters, digits and hyphens"))
_NOTE = _Fits(Note, "note", gettext_noop("a note is at most 200 printable characters on one line"))


def _access(portal: Portal, mine: Profile) -> Access:
    return Access(portal, mine, output.note)


def _print(outcome: Outcome, form: str) -> None:
    if form == "json":
        output.data(outcome.as_json())
        return
    click.echo(f"session  {outcome.session}")
    click.echo(f"state    {outcome.state}")
    if outcome.code is not None or outcome.state in _OPEN:
        click.echo(f"code     {outcome.code or '-'}")


def _explain(access: Access, outcome: Outcome) -> None:
    if outcome.state not in _OPEN:
        output.note(access.explain(outcome))


def _see_through(
    access: Access, session: str, confirm: Callable[[Asked], bool], limit_s: int, form: str
) -> JSON:
    """`Access.see_through`. Ctrl-C ends the command, and not the session: both are said."""
    try:
        return access.see_through(session, confirm, limit_s)
    except KeyboardInterrupt:
        stays = _("The session stays open.\n  Go on waiting: {go_on}\n  End it: {end}")
        output.note(
            stays.format(
                go_on=advice.command("answer", session), end=advice.command("end", session)
            )
        )
        if form == "json":
            output.data(access.outcome(access.look(session, limit_s=0)).as_json())
        sys.exit(Exit.INTERRUPTED)


@click.command()
@click.argument("target", required=False, metavar="SERIAL")
@click.option("--again", metavar="SESSION", help="The same as in this session of yours.")
@click.option("--yes", is_flag=True, help="With --again: do not ask about one made elsewhere.")
@click.option(
    "--level",
    type=click.Choice([it.value for it in Level]),
    default="diagnostics",
    show_default=True,
)
@click.option(
    "--service", "services", type=_SERVICE, multiple=True, help="What to reach. Repeatable."
)
@click.option("--reason", type=click.Choice([it.value for it in RequestReason]))
@click.option("--ticket", type=_TICKET, help="Left out: to follow.")
@click.option("--note", type=_NOTE, default="", help="Shown at the injector.")
@click.option("--for", "life_s", type=_Duration(60, 8 * 3600), default="30m", show_default=True)
@click.option("--wait", is_flag=True, help="Answer the challenge and return when it is decided.")
@click.option(
    "--timeout", "limit_s", type=_Duration(1, 86400), default="4h", show_default=True,
    help="With --wait: how long.",
)  # fmt: skip
@_form
@click.pass_context
def request(
    context: click.Context, /, target: str | None, again: str | None, yes: bool, wait: bool,
    limit_s: int, form: str, **terms: Any,
) -> None:  # fmt: skip
    """Ask for access to an injector (serial number or device id), or for the same again.

    Exits 0 when the portal holds the request; with --wait, only when the session is active.
    """
    _check_usage(context, target, again, terms)
    mine = profile.load(context.obj)
    with Portal(mine) as portal:
        access = _access(portal, mine)
        access.check(signing=wait)
        asked = partial(_asked, mine, terms)
        if again:
            before = access.asked_before(again, lambda asked: yes or _confirm(asked))
            target, asked = before.device, partial(_same, before)
        made = access.request(str(target), asked)
        session = str(made["session"])
        if wait:
            output.note(_("{session}: asked").format(session=session))
            shown = _see_through(access, session, lambda _asked: False, limit_s, form)
        else:
            shown = access.look(session, limit_s=FIRST_WAIT_S)
        outcome = access.outcome(shown)
        _print(outcome, form)
        _explain(access, outcome)
    if wait:
        sys.exit(outcome.exit())
    if outcome.state in _OPEN and form == "text":
        output.note(
            _("Now sign it with: {command}").format(command=advice.command("answer", session))
        )


def _check_usage(
    context: click.Context, target: str | None, again: str | None, terms: dict[str, Any]
) -> None:
    """Either an injector and what is wanted of it, or a session that says both."""
    given = {
        name
        for name in terms
        if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT
    }
    if again:
        if target or given:
            raise click.UsageError(
                _("--again takes everything from that session: leave the rest out."), context
            )
        return
    if not target:
        raise click.UsageError(_("Name an injector, or a session with --again."), context)
    for name, option in (("services", "--service"), ("reason", "--reason")):
        if name not in given:
            raise click.MissingParameter(ctx=context, param_hint=f"'{option}'", param_type="option")


def _same(before: Asked, _device: JSON) -> Asked:
    return before


def _asked(mine: Profile, terms: dict[str, Any], device: JSON) -> Asked:
    return Asked(
        device=str(device["device"]),
        serial=str(device["serial"]),
        specialist=mine.specialist,
        level=Level(terms["level"]).value,
        services=list(dict.fromkeys(terms["services"])),
        reason=RequestReason(terms["reason"]).value,
        ticket=terms["ticket"],
        note=terms["note"].strip(),  # as the portal does
        life_s=terms["life_s"],
    )


@click.command()
@click.argument("target", required=False, metavar="[SERIAL|SESSION]")
@_session_option
@click.option("--yes", is_flag=True, help="Sign a request made elsewhere without asking.")
@click.option("--timeout", "limit_s", type=_Duration(1, 86400), default="4h", show_default=True)
@_form
@click.pass_obj
def answer(
    folder: Path, /, target: str | None, session: str | None, yes: bool, limit_s: int, form: str
) -> None:
    """Sign the injector's challenge, and return when the session is active or over.

    Exits 0 only when it is active.
    """
    mine = profile.load(folder)

    def confirm(asked: Asked) -> bool:
        return yes or _confirm(asked)

    with Portal(mine) as portal:
        access = _access(portal, mine)
        shown = access.find(session or target)
        shown = _see_through(access, str(shown["session"]), confirm, limit_s, form)
        outcome = access.outcome(shown)
        _print(outcome, form)
        _explain(access, outcome)
    sys.exit(outcome.exit())


def _confirm(asked: Asked) -> bool:
    """A request made elsewhere has no record here: its terms are read by a person."""
    output.note(_("This request was not made from this profile. It asks for:"))
    for name, value in msgspec.to_builtins(asked).items():
        shown = ", ".join(value) if isinstance(value, list) else value
        output.note(f"  {name.removesuffix('_s')}: {output.cell(shown)}")
    return click.confirm(_("Is this what you asked for?"), err=True)


@click.command()
@click.argument("target", metavar="SERIAL")
@click.argument("service", type=_SERVICE)
@click.argument("local_port", type=click.IntRange(0, 65535))
@_session_option
@click.option("--bulk", is_flag=True, help="Give way to interactive streams: for large copies.")
@click.pass_obj
def forward(
    folder: Path, /, target: str, service: str, local_port: int, session: str | None, bulk: bool
) -> None:
    """Offer a service of an active session on a port of this machine (0: any).

    Prints `listening 127.0.0.1:PORT`, then serves until Ctrl-C or the session's end.
    """
    with Portal(mine := profile.load(folder)) as portal:
        carrier, carrying = _open(portal, mine, session or target, service)
        run(
            Forward(carrier, service, bulk=bulk, say=output.note).run(
                carrying, local_port, _listening
            )
        )


def _listening(port: int) -> None:
    click.echo(f"listening 127.0.0.1:{port}")
    sys.stdout.flush()


@click.command()
@click.argument("target", metavar="SERIAL")
@click.option("--service", type=_SERVICE, default="console", show_default=True)
@_session_option
@click.pass_obj
def shell(folder: Path, /, target: str, service: str, session: str | None) -> None:
    """Standard input and output on a service of an active session."""
    with Portal(mine := profile.load(folder)) as portal:
        carrier, carrying = _open(portal, mine, session or target, service)
        run(run_shell(carrier, carrying, service, source=sys.stdin.buffer, sink=sys.stdout.buffer))


def _open(portal: Portal, mine: Profile, target: str, service: str) -> tuple[Carrier, Carrying]:
    access = _access(portal, mine)
    shown = access.find(target, states=_ACTIVE, service=service)
    session = str(shown["session"])
    carrier = Carrier(
        access.seal(shown, service), lambda: Sessions(mine.folder).take_epoch(session)
    )

    def carrying(ready: Callable[[], None]) -> Any:
        return carry(portal, session, carrier, output.note, ready)

    return carrier, carrying


@click.command()
@click.argument("session", metavar="SESSION")
@click.argument("ticket", type=_TICKET, metavar="TICKET")
@_form
@click.pass_obj
def ticket(folder: Path, /, session: str, ticket: str, form: str) -> None:
    """Give the ticket of a session that was asked for without one."""
    with Portal(profile.load(folder)) as portal:
        shown = portal.give_ticket(session, ticket)
    given = {name: str(shown[name]) for name in ("session", "state", "ticket")}
    if form == "json":
        output.data(given)
    else:
        click.echo("\n".join(f"{name:8} {output.cell(text)}" for name, text in given.items()))


@click.command()
@click.argument("target", required=False, metavar="[SERIAL|SESSION]")
@_session_option
@_form
@click.pass_obj
def end(folder: Path, /, target: str | None, session: str | None, form: str) -> None:
    """End a session, asked for or active."""
    with Portal(mine := profile.load(folder)) as portal:
        shown = _access(portal, mine).find(session or target)
        shown = portal.end(str(shown["session"]))
        Sessions(mine.folder).forget(str(shown["session"]))
    _print(Outcome(str(shown["session"]), str(shown["state"]), None, None), form)


@click.command()
@click.argument("target", required=False, metavar="[SERIAL|SESSION]")
@_session_option
@_form
@click.pass_obj
def audit(folder: Path, /, target: str | None, session: str | None, form: str) -> None:
    """What the portal and the injector each recorded of a session, and whether they agree."""
    with Portal(mine := profile.load(folder)) as portal:
        if session is None:
            every = {state.value for state in SessionState}
            session = str(_access(portal, mine).find(target, states=every)["session"])
        shown = portal.audit(session)
    if form == "json":
        output.data(shown["entries"])
    else:
        columns = ("side", "index", "at", "action", "actor", "outcome", "reason")
        output.rows("table", columns, shown["entries"])
    output.note(_("The two agree.") if shown["agree"] else _("The two do NOT agree."))
