"""`network.json` in the state directory: what a site sets about its network, proxy and cap.

The file is 0600 like every file there, as it may hold the proxy's password. Nothing of it goes up
or into a log (R-PRV-2); a `Proxy` shows itself without its credentials.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from agent import posix
from agent.errors import StateError
from agent.i18n import _
from agent.identity import MAX_FILE, Host, Port

FILE = "network.json"
LEAST_CAP = 4 * 1024  # bytes a second; less would not carry the heartbeats and their company
MOST_CAP = 1024**3

_PRINTABLE = r"^[^\x00-\x1f\x7f]{0,128}\Z"
User = Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x1f\x7f:]{1,128}\Z")]
Password = Annotated[str, msgspec.Meta(pattern=_PRINTABLE)]


class Proxy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An HTTP proxy that takes CONNECT; Basic authentication where there is a user."""

    host: Host
    port: Port
    user: User | None = None
    password: Password | None = None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __repr__(self) -> str:
        return f"Proxy({self}{', with credentials' if self.user else ''})"


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    v: Literal[1] = 1
    proxy: Proxy | None = None
    up_bytes_s: Annotated[int, msgspec.Meta(ge=LEAST_CAP, le=MOST_CAP)] | None = None

    def shown(self) -> dict[str, Any]:
        """For the person beside the injector; the password is not shown to anybody."""
        proxy = self.proxy
        return {
            "proxy": str(proxy) if proxy else None,
            "proxy_user": proxy.user if proxy else None,
            "up_bytes_s": self.up_bytes_s,
        }


def load(state: Path) -> Settings:
    """The settings; none are set where there is no file, or none that can be used."""
    return read(state)[0]


def read(state: Path) -> tuple[Settings, bool]:
    """The same, and whether there is a file that cannot be read.

    An injector that stayed away because this file is damaged would need a person to come; without a
    proxy and a cap it has at least a chance. The file stays as it is until something is set.
    """
    try:
        with (state / FILE).open("rb") as file:
            return msgspec.json.decode(file.read(MAX_FILE), type=Settings), False
    except FileNotFoundError:
        return Settings(), False
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return Settings(), True


def lost() -> str:
    """That the file cannot be read, for people."""
    return _(
        "The site's network settings ({file}) cannot be read: the injector goes without a proxy"
        " and without a cap. Set them again at the panel, under Network."
    ).format(file=FILE)


def save(state: Path, settings: Settings) -> None:
    """Raises StateError."""
    path = state / FILE
    try:
        posix.write_private(path, msgspec.json.encode(settings))
    except OSError as error:
        raise StateError(
            _("{path} cannot be written: {error}.").format(path=path, error=error.strerror)
        ) from error


def changed(settings: Settings, change: Mapping[str, Any]) -> Settings:
    """`settings` with what `change` names in its place: `proxy` as HOST:PORT with `user` and
    `password` beside it, and `up_bytes_s`; None clears. Without `password`, the same user at the
    same proxy keeps the one it has, and no other. Raises StateError.
    """
    fields: dict[str, Any] = {"proxy": settings.proxy, "up_bytes_s": settings.up_bytes_s}
    if "up_bytes_s" in change:
        fields["up_bytes_s"] = change["up_bytes_s"]
    if "proxy" in change:
        text = change["proxy"]
        credentials = {key: change[key] for key in ("user", "password") if change.get(key)}
        fields["proxy"] = None if text is None else address(str(text)) | credentials
        kept = msgspec.to_builtins(settings.proxy) or {}
        password = kept.pop("password", None)
        if password is not None and fields["proxy"] == kept:
            fields["proxy"] = settings.proxy
    try:
        return msgspec.convert(
            {key: msgspec.to_builtins(value) for key, value in fields.items()}, Settings
        )
    except msgspec.ValidationError as error:
        # msgspec ends with the place, as in "… - at `$.proxy.user`", and never names the value.
        place = str(error).rpartition("$.")[2].rstrip("`")
        raise StateError(_rule(place)) from error


def _rule(place: str) -> str:
    """What a field must be, for the person who set it."""
    rules = {
        "proxy.host": _(
            "The proxy's host must be a name or an address, without spaces or slashes."
        ),
        "proxy.port": _("The proxy's port must be a number from 1 to 65535."),
        "proxy.user": _("The proxy's user name must have 1 to 128 characters, and no colon."),
        "proxy.password": _("The proxy's password must have at most 128 characters on one line."),
        "up_bytes_s": _("A cap is a number of bytes a second from {least} to {most}, or off."),
    }
    text = rules.get(place, _("This cannot be set."))
    return text.format(least=LEAST_CAP, most=MOST_CAP)


def address(text: str) -> dict[str, Any]:
    """`HOST:PORT` or `[ADDRESS]:PORT` in its parts. Raises StateError."""
    host, colon, port = text.strip().rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        colon = ""
    if not (colon and host and port.isascii() and port.isdigit()):
        raise StateError(_("A proxy is written HOST:PORT, as in proxy.hospital.example:3128."))
    return {"host": host, "port": int(port)}
