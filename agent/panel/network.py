"""The site's network at the panel: proxy and cap, and what the doctor finds (R-CON-2, R-CON-7).

What a person sets goes to the agent like any other command. The doctor looks from this program,
with the agent running or not, and what it finds is shown here and kept nowhere.
"""

import asyncio
from pathlib import Path
from typing import Any, ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Input

from agent import i18n
from agent.errors import AgentError, StateError
from agent.i18n import _
from agent.network import settings
from agent.panel import client
from agent.panel.widgets import Text, literal

KILO = 1000


class Network(ModalScreen[None]):
    """Speaks `language`, as the panel under it does."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave"),
        Binding("f2", "save", priority=True),
        Binding("f5", "check", priority=True),
    ]

    def __init__(self, state: Path, language: str) -> None:
        super().__init__()
        self._state = state
        self._language = language

    def compose(self) -> ComposeResult:
        i18n.use(self._language)
        with Vertical(id="network-dialog"):
            yield Text(_("Network of this site"), id="question")
            for name, label, options in self._fields():
                with Horizontal(classes="field"):
                    yield Text(label, classes="label")
                    yield Input(id=name, compact=True, **options)
            with Horizontal(id="network-act"):
                yield Button(literal(_("Close (Esc)")), id="network-leave", compact=True)
                yield Button(literal(_("Save (F2)")), id="network-save", compact=True)
                yield Button(literal(_("Check (F5)")), id="network-check", compact=True)
            yield Text(id="network-message")
            with VerticalScroll(id="network-found"):
                yield Text(id="found")

    @staticmethod
    def _fields() -> list[tuple[str, str, dict[str, Any]]]:
        kept = _("unchanged")
        return [
            ("proxy", _("Proxy"), {"placeholder": _("host:port; empty: none"), "max_length": 260}),
            ("user", _("User"), {"placeholder": _("if the proxy asks"), "max_length": 128}),
            (
                "password",
                _("Password"),
                {"placeholder": kept, "password": True, "max_length": 128},
            ),
            (
                "cap",
                _("Send at most"),
                {"placeholder": _("kB/s; empty: no cap"), "restrict": "[0-9]*", "max_length": 7},
            ),
        ]

    def on_mount(self) -> None:
        self.query_one("#proxy").focus()
        self._load()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        event.stop()
        {
            "network-leave": self.action_leave,
            "network-save": self.action_save,
            "network-check": self.action_check,
        }[event.button.id or "network-leave"]()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.action_save()

    def action_leave(self) -> None:
        self.dismiss(None)

    def action_save(self) -> None:
        self._save()

    def action_check(self) -> None:
        self._check()

    # --- to and from the agent -------------------------------------------------------------------

    @work(group="network")
    async def _load(self) -> None:
        i18n.use(self._language)
        try:
            self._show(await client.call(self._state, "network"))
        except AgentError as error:
            self._say(str(error), bad=True)

    @work(group="network")
    async def _save(self) -> None:
        i18n.use(self._language)
        try:
            shown = await client.call(self._state, "network-set", **self._change())
        except AgentError as error:
            self._say(str(error), bad=True)
        else:
            self._show(shown)
            self._say(_("Saved. The injector goes by it from now on."))

    def _change(self) -> dict[str, Any]:
        """Raises StateError before anything is sent: the address is the likely mistake."""
        proxy, user, password, cap = (
            self.query_one(f"#{name}", Input).value.strip()
            for name in ("proxy", "user", "password", "cap")
        )
        if proxy:
            settings.address(proxy)
        elif user or password:
            raise StateError(_("Enter the proxy's host and port first."))
        return {
            "proxy": proxy or None,
            "user": user or None,
            "password": password or None,
            "up_bytes_s": int(cap) * KILO if cap else None,
        }

    def _show(self, shown: dict[str, Any]) -> None:
        cap = shown.get("up_bytes_s")
        values = {
            "proxy": shown.get("proxy") or "",
            "user": shown.get("proxy_user") or "",
            "password": "",
            "cap": str(cap // KILO) if cap else "",
        }
        for name, value in values.items():
            self.query_one(f"#{name}", Input).value = value

    # --- the doctor ------------------------------------------------------------------------------

    @work(group="doctor", exclusive=True)
    async def _check(self) -> None:
        i18n.use(self._language)
        self._say(_("Looking at the connection…"))
        self.query_one("#found", Text).say("")
        try:
            found = await asyncio.to_thread(_examined, self._state)
        except AgentError as error:
            self._say(str(error), bad=True)
            return
        self._say("")
        self.query_one("#found", Text).say(found)
        self.query_one("#network-found").focus()

    def _say(self, text: str, *, bad: bool = False) -> None:
        message = self.query_one("#network-message", Text)
        message.say(text)
        message.set_class(bad, "bad")


def _examined(state: Path) -> str:
    """What the doctor finds, in words. Raises StateError."""
    from agent.doctor import examination, report  # needed once in a long while

    return report.as_text(examination.examine(state))
