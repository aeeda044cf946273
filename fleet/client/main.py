"""The `patency` command: the group, and what concerns the fleet and the specialist's own keys.

The contract for scripts (output, exit codes) is docs/cli.md.
"""

import base64
import contextlib
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from agent.wire import roster, sshsig
from fleet.client import advice, browser, filters, keys, output, profile, trust
from fleet.client.errors import ClientError
from fleet.client.filters import Filters
from fleet.client.group import Group
from fleet.client.i18n import _
from fleet.client.origin_commands import access_origin
from fleet.client.portal import Portal, check_token, check_url
from fleet.client.sessions import answer, audit, end, forward, request, shell, ticket
from fleet.client.site_policy_commands import group as site_policy_group

DEVICE_COLUMNS = (
    "serial", "device", "product_line", "organisation", "site", "online", "state",
    "software_version", "last_seen_at",
)  # fmt: skip
_TABLE_COLUMNS = ("serial", "product_line", "organisation", "site", "online", "state")
_FORMAT = click.Choice(output.FORMATS)
_TEXT_OR_JSON = click.Choice(["text", "json"])


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--profile",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="The profile folder (default: $PATENCY_PROFILE, else ~/.config/patency).",
)
@click.pass_context
def main(ctx: click.Context, folder: Path | None) -> None:
    """Remote service for connected contrast injectors."""
    ctx.obj = folder or profile.default_folder()


_COMMANDS = (
    request, answer, forward, shell, ticket, end, audit, access_origin, site_policy_group,
)  # fmt: skip
for command in _COMMANDS:
    main.add_command(command)


# --- signing in -------------------------------------------------------------------------------


@main.command()
@click.argument("url", required=False)
@click.option(
    "--token",
    help="A token from the portal's page “Account and tokens”, instead of the browser; - reads "
    "standard input.",
)
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(browser.SCOPES),
    help="What to ask for; repeat it. Left out: all that you may.",
)
@click.option("--key", help="The Ed25519 key file, in OpenSSH format.")
@click.option(
    "--device-root",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The root certificate of the injectors (PEM), from its keeper.",
)
@click.option(
    "--ca",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The CA of the portal (PEM), when the system does not know it.",
)
@click.pass_obj
def login(
    folder: Path,
    url: str | None,
    token: str | None,
    scopes: tuple[str, ...],
    key: str | None,
    device_root: Path | None,
    ca: Path | None,
) -> None:
    """Sign in to a portal: shows a code to approve in the browser. A script gives --token."""
    old = _old_profile(folder)
    url = check_url(url or click.prompt(_("Portal"), default=old.url if old else None))
    if token == "-":  # noqa: S105
        token = sys.stdin.readline().strip()
    made = profile.Profile(
        folder=folder,
        url=url,
        token="" if token is None else check_token(token),
        specialist="",
        key=str(Path(key).absolute()) if key else (old.key if old else "id_ed25519"),
        device_root=str(device_root.absolute())
        if device_root
        else (old.device_root if old else "device-root.pem"),
        ca=str(ca.absolute()) if ca else (old.ca if old else None),
    )
    if token is None:
        made.token = check_token(browser.sign_in(made, scopes))
    with Portal(made) as portal:
        me = portal.me()
    made.specialist = str(me["username"])
    made.save()
    output.note(
        _("Signed in to {url} as {name} ({role}).").format(
            url=url, name=output.cell(me["username"]), role=output.cell(me["role"])
        )
    )
    if not made.key_path.exists():
        output.note(
            _("You have no key yet. Make one with: {command}").format(
                command=advice.command("key", "new", made.key_path)
            )
        )
    if not made.device_root_path.exists():
        output.note(
            _(
                "There is no device root at {path}, and without it no challenge is believed. Get "
                "the file from its keeper and put it there, or say where it is with: {command} FILE"
            ).format(
                path=made.device_root_path, command=advice.command("login", url, "--device-root")
            )
        )


def _old_profile(folder: Path) -> profile.Profile | None:
    try:
        return profile.load(folder)
    except ClientError:
        return None


# --- the fleet --------------------------------------------------------------------------------


@main.command()
@filters.options
@click.option("-o", "form", type=_FORMAT, default="table", help="Output format.")
@click.pass_obj
def devices(folder: Path, /, form: str, **wanted: Any) -> None:
    """The injectors you may see; Q searches serial, room, asset number, site."""
    with Portal(profile.load(folder)) as portal:
        found = Filters(**wanted).find(portal)
    output.rows(form, _TABLE_COLUMNS if form == "table" else DEVICE_COLUMNS, found)


@main.command()
@filters.options
@click.option("--every", default=2.0, type=click.FloatRange(0.5, 60), help="Seconds between looks.")
@click.option("--count", type=click.IntRange(1), help="Stop after so many looks.")
@click.option("-o", "form", type=_TEXT_OR_JSON, default="text", help="Output format.")
@click.pass_obj
def watch(folder: Path, /, form: str, every: float, count: int | None, **wanted: Any) -> None:
    """Print each change: online, offline, another state. Ends with Ctrl-C."""
    known: dict[str, dict[str, Any]] = {}
    looks = 0
    with Portal(profile.load(folder)) as portal, contextlib.suppress(KeyboardInterrupt):
        while True:
            for it in Filters(**wanted).find(portal):
                line = {name: it.get(name) for name in ("serial", "device", "online", "state")}
                if known.get(str(it["device"])) != line:
                    known[str(it["device"])] = line
                    _print_change(form, line)
            looks += 1
            if looks == count:
                return
            time.sleep(every)


def _print_change(form: str, line: dict[str, Any]) -> None:
    at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if form == "json":
        output.data({"at": at, **line})
    else:
        word = "online" if line["online"] else "offline"
        click.echo(f"{at}  {output.cell(line['serial'])}  {word}  {output.cell(line['state'])}")


# --- keys -------------------------------------------------------------------------------------


@main.group()
def key() -> None:
    """The specialist's own Ed25519 key."""


@key.command("new")
@click.argument("path", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option("-o", "form", type=_TEXT_OR_JSON, default="text", help="Output format.")
@click.pass_obj
def key_new(folder: Path, path: Path | None, form: str) -> None:
    """Make a key (OpenSSH format, 0600), by default id_ed25519 in the profile."""
    where = path or folder / "id_ed25519"
    _show_key(where, keys.FileKey(keys.create(where)).public, form)


@key.command("show")
@click.argument("path", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option("-o", "form", type=_TEXT_OR_JSON, default="text", help="Output format.")
@click.pass_obj
def key_show(folder: Path, path: Path | None, form: str) -> None:
    """The public half and its fingerprint, to read out to the keeper of the trust key."""
    where = path or profile.load(folder).key_path
    _show_key(where, keys.signer(where).public, form)


def _show_key(path: Path, public: bytes, form: str) -> None:
    shown = {
        "path": str(path),
        "public_key": keys.public_line(public),
        "fingerprint": keys.fingerprint(public),
    }
    if not sshsig.public(public).is_hardware:
        shown["raw"] = base64.b64encode(public[-32:]).decode()
    if form == "json":
        output.data(shown)
    else:
        click.echo("\n".join(f"{name.replace('_', ' ')}: {text}" for name, text in shown.items()))


# --- trust ------------------------------------------------------------------------------------


@main.group("trust")
def trust_group() -> None:
    """The trust key's own commands: on a machine apart from the portal."""


@trust_group.command("new")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def trust_new(folder: Path) -> None:
    """Make a trust key in FOLDER and print its public half (base64)."""
    click.echo(base64.b64encode(trust.new(folder)).decode())


@trust_group.command("sign")
@click.option(
    "--trust",
    "folder",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The trust folder.",
)
@click.option(
    "--members",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The members file (JSON).",
)
@click.option("-o", "out", type=click.Path(dir_okay=False, path_type=Path), help="Write it here.")
@click.option("--yes", is_flag=True, help="The fingerprints were checked; do not ask.")
def trust_sign(folder: Path, members: Path, out: Path | None, yes: bool) -> None:
    """Sign the roster of the members file: seven days, the next version.

    Each new fingerprint must have been compared with its owner first, by voice or in person; it is
    asked about once.
    """
    them = trust.read_members(members)
    for member in them:
        output.note(trust.shown(member))
    checked, today = trust.Checked(folder), datetime.now(UTC).date()
    for member, print in checked.missing(them):
        if not yes and not _was_compared(member, print):
            raise ClientError(_("Nothing was signed."))
        checked.add(member, print, today)
    signed = trust.sign(folder, them, now=datetime.now(UTC))
    if out:
        trust.write(out, signed)
    else:
        output.data(signed)


def _was_compared(member: roster.Member, print: str) -> bool:
    """Raises ClientError where there is nobody to ask."""
    if not sys.stdin.isatty():
        raise ClientError(
            _(
                "{print} of {id} was not signed before. Compare it with {name} by voice or in "
                "person; then sign at a terminal, or with --yes."
            ).format(print=print, id=member.id, name=member.name)
        )
    question = _("Has {name} read out {print} to you, outside the portal?")
    return click.confirm(question.format(name=member.name, print=print), err=True)


@trust_group.command("entitle")
@click.option(
    "--trust",
    "folder",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The trust folder.",
)
@click.option(
    "--grants",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The grants file (JSON).",
)
@click.option("-o", "out", type=click.Path(dir_okay=False, path_type=Path), help="Write it here.")
def trust_entitle(folder: Path, grants: Path, out: Path | None) -> None:
    """Sign the entitlements of the grants file: what remote service each injector may get, and
    until when."""
    them = trust.read_grants(grants)
    for it in them:
        output.note(f"{it.product_line} {it.serial}  {it.level}  {it.begins} – {it.ends}")
    signed = trust.entitle(folder, them)
    if out:
        trust.write(out, signed)
    else:
        output.data(signed)


if __name__ == "__main__":
    main()
