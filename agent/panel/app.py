"""The panel's program: keeps the screen as the agent says, and carries what a person does."""

import time
from pathlib import Path
from typing import Any, ClassVar

from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Horizontal
from textual.events import Resize
from textual.widgets import Button, Input

from agent import i18n
from agent.errors import AgentError
from agent.i18n import _
from agent.panel import client, contacts, style, words
from agent.panel.network import Network
from agent.panel.view import SessionView, View
from agent.panel.widgets import (
    Calm,
    Card,
    Confirm,
    PinInput,
    Text,
    literal,
    may_cover,
    policy_question,
)
from agent.wire.catalogue import SessionState

SMALL = 34  # lines; below this, no air
MESSAGE_S = 12.0  # how long an answer stays on the screen


class Panel(App[None]):
    """The panel of one injector. `language` is its own; other programs' stays as it is."""

    TITLE = "Patency"
    CSS = style.CSS
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f2", "approve", priority=True),
        Binding("f3", "refuse", priority=True),
        Binding("f4", "stop", priority=True),
        Binding("f5", "not_now"),
        Binding("f6", "no_patient"),
        Binding("f7", "remote"),
        Binding("f8", "language"),
        Binding("f9", "network"),
        Binding("f10", "consent", priority=True),
        Binding("ctrl+q", "quit", priority=True),
    ]

    def __init__(self, state: Path) -> None:
        super().__init__()
        self._state = state
        self._language = i18n.chosen(state)
        self._contacts = contacts.load(state)
        self._view: View | None = None
        self._heard = False  # whether the agent ever answered, or was found not to
        self._seen_at = time.monotonic()
        self._asked: str | None = None  # the session whose PIN is being entered
        self._hours = 0  # that the approval is to count for its ticket
        self._said_at = 0.0
        self._busy = False

    # --- the screen ------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        with Horizontal(id="head"):
            yield Text(id="who")
            yield Text(id="link")
        with Container(id="body"):
            yield Calm(id="calm", classes="page")
            yield Card(id="card", classes="page")
        yield Text(id="message")
        with Horizontal(id="bar"):
            yield Button(id="no-patient")
            yield Button(id="remote")
            yield Button(id="language")
            yield Text(classes="gap")
            yield Button(id="stop", variant="error")
        with Horizontal(id="contacts"):
            for name in ("device", "connectivity", "cybersecurity"):
                yield Text(id=f"contact-{name}")

    def on_mount(self) -> None:
        self.register_theme(style.THEME)
        self.theme = style.THEME.name
        self._show()
        self.set_interval(1.0, self._tick)
        self._follow()

    @work(exclusive=True, group="watch")
    async def _follow(self) -> None:
        async for view in client.views(self._state):
            self._view, self._seen_at, self._heard = view, time.monotonic(), True
            self._show()

    def on_resize(self, event: Resize) -> None:
        """On a small screen everything that matters still fits: 80 columns, 24 lines."""
        small = event.size.height < SMALL
        self.default_screen.set_class(small, "small")
        for button in self.default_screen.query(Button):
            button.compact = small
        self.query_one("#pin", PinInput).compact = small

    def _tick(self) -> None:
        if self._said_at and time.monotonic() - self._said_at > MESSAGE_S:
            self._say("")
        self._show()

    def _show(self) -> None:
        """Bring every part to what is known now."""
        if not self.is_running:  # the last view may come while the screen is taken down
            return
        i18n.use(self._language)
        view = self._view
        it = view.shown if view else None
        elapsed = int(time.monotonic() - self._seen_at)
        self._show_head(view)
        self._show_bar(view)
        self.query_one(Calm).display = it is None
        self.query_one(Calm).show(view, heard=self._heard)
        card = self.query_one(Card)
        card.display = it is not None
        if view is not None and it is not None:
            card.show(view, it, elapsed)
        self._ask(it)
        self._show_hours()

    def _show_hours(self) -> None:
        """What the approval is to count for."""
        text = _("This ticket for {time} (F10)").format(time=words.length(self._hours * 3600))
        label = text if self._hours else _("This session only (F10)")
        self.query_one("#ticket", Button).label = literal(label)

    def _show_head(self, view: View | None) -> None:
        head = self.query_one("#head")
        active = view is not None and any(s.state is SessionState.ACTIVE for s in view.open)
        head.set_class(active, "active")
        if view is None:
            self.query_one("#who", Text).say(_("Remote service"))
            self.query_one("#link", Text).say("")
            return
        who = _("Injector {serial}  ·  {state}").format(
            serial=view.serial, state=words.clinical(view.state)
        )
        self.query_one("#who", Text).say(who)
        if active:
            link = _("● Remote session")
        elif not view.remote:
            link = _("○ Remote connection off")
        elif view.online:
            link = _("○ Ready for remote service")
        else:
            link = _("○ No connection to the manufacturer")
        self.query_one("#link", Text).say(link)

    def _show_bar(self, view: View | None) -> None:
        def button(id: str, label: str, *, enabled: bool) -> None:
            it = self.query_one(f"#{id}", Button)
            it.label = literal(label)
            it.disabled = not enabled

        known = view is not None
        off = view is not None and not view.remote
        button("no-patient", _("No patient (F6)"), enabled=view is not None and view.in_use)
        button("remote", _("Remote on (F7)") if off else _("Remote off (F7)"), enabled=known)
        button("language", "English (F8)" if self._french else "Français (F8)", enabled=True)
        button("stop", _("Stop (F4)"), enabled=view is not None and bool(view.open))
        for name, label in (
            ("device", _("Device support")),
            ("connectivity", _("Connectivity support")),
            ("cybersecurity", _("Cybersecurity support")),
        ):
            reach = getattr(self._contacts, name)
            self.query_one(f"#contact-{name}", Text).say(f"{label}\n{reach}")

    @property
    def _french(self) -> bool:
        return self._language.startswith("fr")

    def _ask(self, it: SessionView | None) -> None:
        """Put the cursor where the PIN goes when a PIN is wanted; forget digits meant for another
        session."""
        asked = it.session if it is not None and it.wants_pin else None
        if asked == self._asked:
            return
        self._asked = asked
        self._hours = 0
        pin = self.query_one("#pin", PinInput)
        pin.value = ""
        if asked is not None:
            self.bell()
            self._say("")
            pin.focus()
        elif self.focused is pin:
            self.set_focus(None)

    def _say(self, text: str, *, bad: bool = False) -> None:
        if not self.is_running:
            return
        message = self.query_one("#message", Text)
        message.say(text)
        message.set_class(bad, "bad")
        self._said_at = time.monotonic() if text else 0.0

    # --- what a person does ----------------------------------------------------------------------

    def on_button_pressed(self, event: Button.Pressed) -> None:
        actions = {
            "approve": self.action_approve,
            "refuse": self.action_refuse,
            "stop": self.action_stop,
            "not-now": self.action_not_now,
            "ticket": self.action_consent,
            "site-policy": self.action_consent,
            "no-patient": self.action_no_patient,
            "remote": self.action_remote,
            "language": self.action_language,
            "network": self.action_network,
        }
        if event.button.id in actions:
            actions[event.button.id]()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        if event.input.id == "pin":
            self.action_approve()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """A question must be answered first; Stop needs no permission of anyone's."""
        asking = isinstance(self.screen, Confirm | Network)
        return action in ("stop", "quit") if asking and action in _OURS else True

    def action_approve(self) -> None:
        pin = self.query_one("#pin", PinInput)
        if self._asked is None or self._busy:
            return
        i18n.use(self._language)
        if not pin.value:
            self._say(_("Enter your PIN first."), bad=True)
            return
        entered, pin.value = pin.value, ""
        self._busy = True
        hours = self._hours if self._may_cover else 0
        done = _("Approved.")
        if self._view is not None and self._view.approvers_needed > 1:
            done = _("Your approval counts.")
        self._command("approve", done, session=self._asked, pin=entered, ticket_h=hours)

    def action_refuse(self) -> None:
        it = self._view.shown if self._view else None
        if it is not None and it.state is not SessionState.ACTIVE:
            i18n.use(self._language)
            self._command("refuse", _("Refused."), session=it.session)

    def action_not_now(self) -> None:
        """One touch: a patient is on the table."""
        it = self._view.shown if self._view else None
        if it is not None and it.state is not SessionState.ACTIVE:
            i18n.use(self._language)
            told = _("Not now. The specialist is told.")
            self._command("refuse", told, session=it.session, patient=True)

    @property
    def _may_cover(self) -> bool:
        it = self._view.shown if self._view else None
        return self._view is not None and it is not None and may_cover(self._view, it)

    def action_consent(self) -> None:
        """How long the approval is to count for its ticket; or the policy that waits."""
        i18n.use(self._language)
        if self._view is None:
            return
        if self._may_cover:
            self._hours = (self._hours + 1) % (self._view.ticket_h + 1)
            self._show()
        elif self._view.shown is None and (waiting := self._view.site.waiting) is not None:
            self._confirm(
                policy_question(waiting),
                "site-policy-accept",
                _("The policy holds."),
                digest=waiting.digest,
            )

    def action_stop(self) -> None:
        if self._view is not None and self._view.open:
            i18n.use(self._language)
            self._command("stop", _("Stopped."))

    def action_no_patient(self) -> None:
        if self._view is None or not self._view.in_use:
            return
        i18n.use(self._language)
        self._confirm(
            Confirm(
                _("Is no patient connected to this injector?"),
                _("The injector goes to service, and remote work may go on."),
                _("No patient is connected"),
            ),
            "no-patient",
            _("Declared: no patient is connected."),
        )

    def action_remote(self) -> None:
        if self._view is None:
            return
        i18n.use(self._language)
        if self._view.remote:
            question = Confirm(
                _("Switch remote connection off?"),
                _("Sessions end, and nobody can connect until it is switched on here again."),
                _("Switch off"),
            )
            self._confirm(question, "remote-off", _("Remote connection is off."))
        else:
            question = Confirm(
                _("Switch remote connection on?"),
                _("Specialists may then ask for access to this injector."),
                _("Switch on (Enter)"),
                pin=True,
            )
            self._confirm(question, "remote-on", _("Remote connection is on."))

    def action_language(self) -> None:
        self._language = "en" if self._french else "fr_CA"
        self._say("")
        self._show()

    def action_network(self) -> None:
        self.push_screen(Network(self._state, self._language))

    def _confirm(self, question: Confirm, op: str, done: str, **fields: Any) -> None:
        def answered(answer: str | None) -> None:
            if answer is not None:
                self._command(op, done, **({"pin": answer} if answer else {}), **fields)

        self.push_screen(question, answered)

    @work(group="commands")
    async def _command(self, op: str, done: str, **fields: Any) -> None:
        i18n.use(self._language)
        try:
            await client.call(self._state, op, **fields)
        except AgentError as error:
            self._say(str(error), bad=True)
        else:
            self._say(done)
        finally:
            self._busy = False


_OURS = frozenset(
    {"approve", "refuse", "stop", "not_now", "consent", "no_patient", "remote", "language"}
    | {"network", "quit"}
)
