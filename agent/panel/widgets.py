"""Parts of the panel's screen. They show what they are given; nothing that came from the network is
ever read as markup."""

from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Center, Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static

from agent.i18n import _
from agent.panel import words
from agent.panel.view import SessionView, SitePolicyView, View
from agent.wire.catalogue import Level, SessionState


def literal(text: str) -> Content:
    """The text as it is, brackets and all."""
    return Content(text)


class Text(Static):
    """Static text that is never markup."""

    def __init__(self, text: str = "", **options: Any) -> None:
        super().__init__(literal(text), markup=False, **options)

    def say(self, text: str) -> None:
        self.update(literal(text))


class PinInput(Input):
    """Digits that nobody sees."""

    def __init__(self, **options: Any) -> None:
        super().__init__(password=True, restrict="[0-9]*", max_length=12, **options)


class Fact(Horizontal):
    """A label and what there is to say."""

    def __init__(self, name: str) -> None:
        super().__init__(classes="fact", id=f"fact-{name}")
        self._label = Text(classes="label")
        self._value = Text(classes="value")

    def compose(self) -> ComposeResult:
        yield self._label
        yield self._value

    def say(self, label: str, value: str) -> None:
        self._label.say(label)
        self._value.say(value)
        self.display = bool(value)


class Calm(Vertical):
    """Nobody asks for anything."""

    def compose(self) -> ComposeResult:
        yield Text(id="calm-title", classes="big")
        yield Text(id="calm-text")
        yield Text(id="last")
        yield Text(id="policy")
        with Center():
            yield Button(id="network", compact=True)
        with Center():
            yield Button(id="site-policy", variant="warning", compact=True)

    def show(self, view: View | None, *, heard: bool) -> None:
        """`heard`: whether an agent was looked for already."""
        self.query_one("#network", Button).label = literal(_("Network (F9)"))
        title, text, last = _calm(view) if heard else (_("Connecting to the agent…"), "", "")
        self.query_one("#calm-title", Text).say(title)
        self.query_one("#calm-text", Text).say(text)
        self.query_one("#last", Text).say(last)
        self.query_one("#policy", Text).say(_policy(view) if view else "")
        waits = self.query_one("#site-policy", Button)
        waits.display = view is not None and view.site.waiting is not None
        waits.label = literal(_("A policy of the hospital waits (F10)"))


def _policy(view: View) -> str:
    """The policy in force, who signed it, and which tickets a consent covers."""
    held = view.site.holds
    if view.site.broken:
        text = _("The site's policy on disk cannot be believed: nothing is allowed.")
    elif held is None:
        text = _("Policy: as it was set at this panel")
    else:
        text = _("Policy: version {version}, signed by the hospital's key {key}").format(
            version=held.version, key=held.fingerprint[:11]
        )
    lines = [text + (_(", tightened by the manufacturer") if view.site.tightened else "")]
    for it in view.consents:
        lines.append(
            _("Consent: {who}, ticket {ticket}, for another {time}").format(
                who=it.specialist, ticket=it.ticket, time=words.length(it.left_s)
            )
        )
    return "\n".join(lines)


def _calm(view: View | None) -> tuple[str, str, str]:
    if view is None:
        return _("The agent does not answer"), _("Trying again…"), ""
    last = words.report(view.last) if view.last else ""
    if not view.remote:
        text = _("Nobody can connect to this injector. Clinical work is not affected.")
        return _("Remote connection is off"), text, last
    if not view.audit_ok:
        text = _("The record of remote actions cannot be written, so nobody can connect.")
        return _("Remote access is not possible"), text, last
    return _("No remote session"), _("Nobody is connected to this injector."), last


class Card(Vertical):
    """One request or session: who, why, what, how long, the code, and what a person may do."""

    def compose(self) -> ComposeResult:
        yield Text(id="title")
        yield Text(id="advice")
        with Horizontal(id="columns"):
            with VerticalScroll(id="facts"):
                for name in ("who", "why", "what", "time", "ticket", "note", "moved"):
                    yield Fact(name)
            with Vertical(id="aside"):
                yield Text(id="code-label")
                yield Text(id="code")
                yield Text(id="left-label")
                yield Text(id="left")
                yield Button(id="ticket", variant="default")
        yield Text(id="notice")
        with Horizontal(id="act"):
            yield PinInput(id="pin")
            yield Button(id="approve", variant="success")
            yield Button(id="refuse", variant="default")
            yield Button(id="not-now", variant="default")

    def show(self, view: View, it: SessionView, elapsed: int) -> None:
        """`elapsed` seconds ago the view was true."""
        active = it.state is SessionState.ACTIVE
        self.set_class(active, "active")
        self.set_class(it.wants_pin, "ask")
        title = _("{name} is connected") if active else _("{name} asks for access")
        self.set_class(it.break_glass, "glass")
        self.query_one("#title", Text).say(title.format(name=it.name))
        advice, strong = _advice(view, it)
        self.query_one("#advice", Text).say(advice)
        self.query_one("#advice").set_class(strong, "strong")
        self._facts(it)
        self._aside(it, elapsed)
        self._actions(view, it)

    def _facts(self, it: SessionView) -> None:
        def fact(name: str, label: str, value: str) -> None:
            self.query_one(f"#fact-{name}", Fact).say(label, value)

        active = it.state is SessionState.ACTIVE
        fact("who", _("Who"), f"{it.name}, {it.organisation} ({it.specialist})")
        fact("why", _("Why"), words.why(it.why))
        fact(
            "what",
            _("What"),
            _("{level}: {services}").format(
                level=words.level(it.level), services=", ".join(it.services)
            )
            + f" ({words.client(it.client)})",
        )
        fact("time", _("How long"), words.length(it.life_s))
        fact("ticket", _("Ticket"), it.ticket or _("to follow"))
        fact("note", _("Note"), it.note)
        moved = _("{up} sent, {down} received").format(
            up=words.size(it.bytes_up), down=words.size(it.bytes_down)
        )
        fact("moved", _("Data"), moved if active else "")

    def _aside(self, it: SessionView, elapsed: int) -> None:
        """The code, and how long is left."""
        self.query_one("#code-label", Text).say(_("Code") if it.code else "")
        self.query_one("#code", Text).say(words.spaced(it.code or ""))
        self.query_one("#code").display = it.code is not None
        label, left = _left(it)
        self.query_one("#left-label", Text).say(label)
        self.query_one("#left", Text).say(words.countdown(left - elapsed) if label else "")
        notice = self.query_one("#notice", Text)
        notice.display = it.level is not Level.DIAGNOSTICS
        notice.say(
            _(
                "The specialist can see or move what is on this injector, patient data included."
                " Nothing of it is kept outside."
            )
        )

    def _actions(self, view: View, it: SessionView) -> None:
        self.query_one("#pin", PinInput).display = it.wants_pin
        self.query_one("#pin", PinInput).placeholder = _("PIN")
        approve = self.query_one("#approve", Button)
        approve.display = it.wants_pin
        renewal = it.state is SessionState.ACTIVE
        approve.label = literal(_("Go on (Enter)") if renewal else _("Approve (Enter)"))
        refuse = self.query_one("#refuse", Button)
        refuse.display = not renewal
        refuse.label = literal(_("Refuse (F3)"))
        not_now = self.query_one("#not-now", Button)
        not_now.display = not renewal
        not_now.label = literal(_("Not now: patient (F5)"))
        self.query_one("#ticket", Button).display = may_cover(view, it)
        self.query_one("#act").display = it.wants_pin or not renewal


def _left(it: SessionView) -> tuple[str, int]:
    """What runs out, and in how many seconds as of the view."""
    if it.renew_left_s is not None:
        return _("The session ends in"), it.renew_left_s
    if it.state is SessionState.ACTIVE:
        return _("Ends in"), it.left_s or 0
    if it.state is SessionState.PRESENCE:
        return _("Refused by itself in"), it.left_s or 0
    return "", 0


def may_cover(view: View, it: SessionView) -> bool:
    """Whether an approval may be consent to this session's ticket."""
    asked = it.state is SessionState.PRESENCE
    return asked and bool(view.ticket_h and it.ticket) and not it.break_glass


def _advice(view: View, it: SessionView) -> tuple[str, bool]:
    """What to do now, and whether it matters that it is seen."""
    text, strong = _to_do(view, it)
    if it.break_glass:
        return _("EMERGENCY ACCESS, outside the specialist's usual rights.") + " " + text, True
    return text, strong


def _to_do(view: View, it: SessionView) -> tuple[str, bool]:
    if it.renew_left_s is not None:
        return _("Is somebody still here? Enter a PIN, or the session ends."), True
    if it.state is SessionState.ACTIVE and it.paused:
        return _("On hold: the injector is in use. No data moves until it is free."), True
    if it.state is SessionState.ACTIVE and it.covered:
        text = _("Covered by the consent of approver {number}. Stop ends it and the consent.")
        return text.format(number=it.approvers[-1]), False
    if it.state is SessionState.ACTIVE:
        return _("Stop ends the session at once."), False
    if it.state is SessionState.WAITING:
        return _("The injector is in use. The request waits until it is free."), False
    if it.state is SessionState.CHALLENGED:
        return _("Waiting for the specialist to sign. There is nothing to do yet."), False
    if view.in_use:
        text = _("The injector is in use. Approve when it is free, or declare: no patient.")
        return text, True
    if not view.has_pin:
        return _("Nobody has a PIN at this injector yet, so nobody can approve."), True
    if it.approvers:
        return _("Approved by one person. Somebody else must approve as well."), True
    if view.approvers_needed > 1:
        return _("Compare the code with the specialist. Two different people must approve."), False
    text = _("Have the specialist read out the code. If it is the one here, approve with your PIN.")
    return text, False


class Confirm(ModalScreen[str | None]):
    """A question. The result is "" for yes, the PIN where one is asked for, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape", "no", "")]

    def __init__(self, question: str, detail: str, yes: str, *, pin: bool = False) -> None:
        super().__init__()
        self._question, self._detail, self._yes, self._pin = question, detail, yes, pin

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog"):
            yield Text(self._question, id="question")
            yield Text(self._detail)
            if self._pin:
                yield PinInput(placeholder=_("PIN"), id="dialog-pin")
            with Horizontal():
                yield Button(literal(_("No (Esc)")), id="no")
                yield Button(literal(self._yes), id="yes", variant="warning")

    def on_mount(self) -> None:
        self.query_one("#dialog-pin" if self._pin else "#no").focus()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        event.stop()
        if event.button.id == "yes":
            self._answer()
        else:
            self.dismiss(None)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self._answer()

    def action_no(self) -> None:
        self.dismiss(None)

    def _answer(self) -> None:
        self.dismiss(self.query_one("#dialog-pin", PinInput).value if self._pin else "")


def policy_question(waiting: SitePolicyView) -> Confirm:
    """Whether the hospital's policy that waits is to hold."""
    detail = [
        _("Compare its fingerprint with the one that the hospital's IT gave you:"),
        waiting.fingerprint,
    ]
    if waiting.loosens:
        detail.append(_("It loosens: {fields}").format(fields=", ".join(waiting.loosens)))
    return Confirm(
        _("Let version {version} of the hospital's policy hold?").format(version=waiting.version),
        "\n".join(detail),
        _("Accept (Enter)"),
        pin=True,
    )
