"""Asking for access and answering the injector's challenge (R-ACC-3, R-ACC-4)."""

import base64
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from agent.wire import challenge, seal
from agent.wire.catalogue import SessionState
from agent.wire.challenge import Terms
from fleet.client import advice, believe, keys, words
from fleet.client.errors import ClientError, Exit, NotAllowed, NotFound, SessionOver, Unreachable
from fleet.client.i18n import _
from fleet.client.portal import JSON, Declined, Portal
from fleet.client.profile import Asked, Profile, SessionFile, Sessions
from fleet.client.remedies import Remedies

FIRST_WAIT_S = 3.0  # how long `request` waits for a quick device, so that its code can be shown
AWAY_S = 60.0  # how long `--wait` bears a portal that does not answer
_ANSWERABLE = SessionState.CHALLENGED.value
_ANSWERED = (SessionState.PRESENCE.value, SessionState.ACTIVE.value)
_OVER = {state.value for state in SessionState if state.over}


@dataclass(frozen=True)
class Outcome:
    """What `request` and `answer` print. `code` is None while there is no believed challenge."""

    session: str
    state: str
    reason: str | None
    code: str | None

    def as_json(self) -> JSON:
        return {"session": self.session, "state": self.state, "code": self.code}

    def exit(self) -> Exit:
        """For who waited: 0 only when active."""
        return {
            SessionState.ACTIVE.value: Exit.OK,
            SessionState.REFUSED.value: Exit.REFUSED,
            SessionState.EXPIRED.value: Exit.EXPIRED,
            SessionState.ENDED.value: Exit.OVER,
        }.get(SessionState(self.state).value, Exit.TIMED_OUT)


def _bytes(value: Any, what: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError):
        raise Unreachable(
            _("What the portal sent as {what} cannot be read. Check its address.").format(what=what)
        ) from None


def _why(error: Exception) -> str:
    """The system's words without the path, which the message has already."""
    return getattr(error, "strerror", None) or str(error).split(". See ", 1)[0]


class Access:
    """One specialist's requests, from one profile. `say` gets a line for a person now and then."""

    def __init__(
        self,
        portal: Portal,
        profile: Profile,
        say: Callable[[str], None],
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._portal = portal
        self._profile = profile
        self._sessions = Sessions(profile.folder)
        self._remedies = Remedies(portal, profile)
        self._say = say
        self._sleep = sleep
        self._clock = clock
        self._believed: tuple[bytes, Terms] | None = None

    # --- finding ----------------------------------------------------------------------------------

    def find(
        self, target: str | None, *, states: set[str] | None = None, service: str | None = None
    ) -> JSON:
        """The session with this id, or the newest that is open with this injector.

        `states` are those to look for, `service` what it is wanted for. Raises NotFound,
        SessionOver.
        """
        if target is None:
            raise ClientError(
                _("Name an injector or a session. Your injectors: {command}").format(
                    command=advice.command("devices")
                ),
                Exit.USAGE,
            )
        if len(target) == 32 and set(target) <= set("0123456789abcdef"):
            return self._portal.session(target)
        wanted = states or {state.value for state in SessionState} - _OVER
        last: JSON | None = None
        for it in self._portal.sessions():
            if target not in (it.get("serial"), it.get("device")):
                continue
            if it.get("specialist") != self._profile.specialist:
                continue
            if it.get("state") in wanted:
                return it
            last = last or it
        raise self._none(target, last, service)

    def _none(self, target: str, last: JSON | None, service: str | None) -> ClientError:
        """There is no session to use with this injector; `last` is the newest of all."""
        if last is None:
            return NotFound(
                _("You have no session with {target}. Ask with: {command}").format(
                    target=target, command=self._remedies.ask(target, service)
                )
            )
        session, state = str(last["session"]), str(last["state"])
        if state not in _OVER:
            return self._not_active(session, state)
        return SessionOver(
            f"{words.over(state, last.get('state_reason'))} {self._again(session, target, service)}"
        )

    def _again(self, session: str, target: str, service: str | None) -> str:
        file = self._sessions.get(session)
        if file is None or (service and service not in file.asked.services):
            command = self._remedies.ask(target, service)
        else:
            command = self._remedies.again(file.asked)
        return _("Ask again with: {command}").format(command=command)

    @staticmethod
    def _not_active(session: str, state: str) -> NotFound:
        return NotFound(
            _("The session is not active yet: {state}. Go on with: {command}").format(
                state=words.state(state), command=advice.command("answer", session)
            )
        )

    # --- asking -----------------------------------------------------------------------------------

    def check(self, *, signing: bool) -> None:
        """That a request could be followed through from here, before anybody is asked.

        Raises ClientError when the device root, the folder of sessions or, for `signing`, the key
        cannot be used.
        """
        self._roots()
        if signing:
            keys.signer(self._profile.key_path)
        self._sessions.check()

    def request(self, target: str, asked: Callable[[JSON], Asked]) -> JSON:
        """Ask, and remember what was asked before anything else can go wrong."""
        self._tidy()
        device = self._portal.device(target)
        mine = asked(device)
        try:
            made = self._portal.request_access(
                {
                    "device": mine.device,
                    "level": mine.level,
                    "services": mine.services,
                    "reason": mine.reason,
                    "ticket": mine.ticket,
                    "note": mine.note,
                    "life_s": mine.life_s,
                }
            )
        except Declined as error:
            advised = self._remedies.refused(mine)
            raise ClientError(f"{error.message} {advised}".strip(), Exit.REFUSED) from error
        self._sessions.save(SessionFile(session=str(made["session"]), asked=mine))
        return made

    def explain(self, outcome: Outcome) -> str:
        """A session that is over in words, with what to do."""
        file = self._sessions.get(outcome.session)
        advised = self._remedies.refused(file.asked, outcome.reason) if file else ""
        return f"{words.over(outcome.state, outcome.reason)} {advised}".strip()

    def _tidy(self) -> None:
        """Old keys do not pile up: a session lives 8 hours at most, so none of 2 days is open."""
        for session, age_s in self._sessions.ages():
            if age_s > 48 * 3600:
                self._sessions.forget(session)

    # --- the challenge ----------------------------------------------------------------------------

    def believe(self, shown: JSON, asked: Asked) -> tuple[bytes, Terms]:
        """The challenge's bytes and terms. Raises NotBelieved, ClientError."""
        data = _bytes(shown["challenge"], "challenge")
        if self._believed is not None and self._believed[0] == data:
            return self._believed
        terms = believe.verify(
            data=data,
            signature=_bytes(shown["challenge_signature"], "challenge"),
            certificates=[_bytes(it, "certificates") for it in shown["certificates"]],
            request=_bytes(shown["request"], "request"),
            session=str(shown["session"]),
            asked=asked,
            roots=self._roots(),
            now=datetime.now(UTC),
        )
        self._believed = data, terms
        return self._believed

    def _roots(self) -> list[x509.Certificate]:
        path = self._profile.device_root_path
        try:
            return x509.load_pem_x509_certificates(path.read_bytes())
        except (OSError, ValueError) as error:
            raise ClientError(
                _(
                    "The device root {path} cannot be read ({error}). Get the file from its "
                    "keeper, not from the portal, and put it there, or say where it is with: "
                    "{command} FILE"
                ).format(
                    path=path,
                    error=_why(error),
                    command=advice.command("login", self._portal.url, "--device-root"),
                )
            ) from error

    def code(self, shown: JSON) -> str | None:
        """The code to compare by telephone, or None while there is no challenge."""
        file = self._sessions.get(str(shown["session"]))
        if not shown.get("challenge") or file is None:
            return None
        return challenge.code(self.believe(shown, file.asked)[0])

    def outcome(self, shown: JSON) -> Outcome:
        code = self.code(shown)
        return Outcome(
            str(shown["session"]), str(shown["state"]), shown.get("state_reason") or None, code
        )

    def answer(self, shown: JSON, confirm: Callable[[Asked], bool]) -> JSON:
        """Sign the challenge and send the answer.

        `confirm` is asked when the request was not made from this profile. The session's key is on
        disk before it is sent, and an answer sent again is the same answer.
        """
        session = str(shown["session"])
        if not shown.get("challenge"):
            raise ClientError(
                _("The injector has sent no challenge. Try again with: {command}").format(
                    command=advice.command("answer", session)
                )
            )
        file = self._sessions.get(session) or self._adopt(shown, confirm)
        data, terms = self.believe(shown, file.asked)
        signer = keys.signer(self._profile.key_path)
        with self._sessions.locked(session):
            file = self._sessions.get(session) or file
            if file.private_key is None or file.challenge != data.hex():
                private = X25519PrivateKey.generate()
                file = replace(
                    file, private_key=private.private_bytes_raw().hex(), challenge=data.hex()
                )
                self._sessions.save(file)
        public = file.key().public_key().public_bytes_raw()
        signature = signer.sign(challenge.to_sign(data, public))
        if terms.presence:
            self._say(
                _("A person at the injector is asked. Compare the code: {code}").format(
                    code=challenge.code(data)
                )
            )
        return self._portal.answer(session, public, signature)

    def asked_before(self, session: str, confirm: Callable[[Asked], bool]) -> Asked:
        """What this specialist asked for in that session, to ask for it again.

        `confirm` is asked when there is no record of it here: then the terms are the portal's word.
        """
        file = self._sessions.get(session)
        if file is not None:
            return file.asked
        return self._elsewhere(self._portal.session(session), confirm)

    def _adopt(self, shown: JSON, confirm: Callable[[Asked], bool]) -> SessionFile:
        asked = self._elsewhere(shown, confirm)
        return SessionFile(session=str(shown["session"]), asked=asked)

    def _elsewhere(self, shown: JSON, confirm: Callable[[Asked], bool]) -> Asked:
        """A request made elsewhere, as in the browser: its terms must be read by a person."""
        request = believe.read_request(_bytes(shown["request"], "request"))
        asked = believe.asked_in(request, str(shown["serial"]))
        if asked.specialist != self._profile.specialist:
            raise NotAllowed(
                _("{specialist} asked for this session, and nobody else may answer it.").format(
                    specialist=asked.specialist
                )
            )
        if not confirm(asked):
            raise ClientError(_("Nothing was signed."))
        return asked

    # --- waiting ----------------------------------------------------------------------------------

    def look(self, session: str, *, limit_s: float) -> JSON:
        """The session once it has a challenge or is over, or as it is after `limit_s` seconds."""
        end = self._clock() + limit_s
        while True:
            shown = self._portal.session(session)
            if shown.get("challenge") or shown["state"] in _OVER or self._clock() >= end:
                return shown
            self._sleep(0.1)

    def see_through(self, session: str, confirm: Callable[[Asked], bool], limit_s: float) -> JSON:
        """Answer when the challenge is in, and return when the session is active or over.

        Raises ClientError (timed out) after `limit_s` seconds, Unreachable after AWAY_S without a
        word from the portal.
        """
        start = heard = self._clock()
        state, answered = "", False
        while True:
            now = self._clock()
            try:
                shown = self._portal.session(session)
                heard = now
                if shown["state"] != state:
                    state = str(shown["state"])
                    said = words.state(state)
                    self._say(f"{session}: {state}" + (f" ({said})" if said != state else ""))
                if state == SessionState.ACTIVE.value or state in _OVER:
                    return shown
                if state == _ANSWERABLE and not answered:
                    shown = self.answer(shown, confirm)
                    answered = True
                    continue
            except Unreachable:
                if now - heard > AWAY_S:
                    raise
            if now - start > limit_s:
                raise ClientError(
                    _("Not decided yet: {state}. Go on waiting with: {command}").format(
                        state=words.state(state), command=advice.command("answer", session)
                    ),
                    Exit.TIMED_OUT,
                )
            self._sleep(0.2 if now - start < 20 else 1.0)

    # --- using ------------------------------------------------------------------------------------

    def seal(self, shown: JSON, service: str) -> seal.Seal:
        """The seal of an active session that covers `service`. Raises SessionOver, NotFound."""
        session, state = str(shown["session"]), str(shown["state"])
        if state in _OVER:
            again = self._again(session, str(shown["serial"]), service)
            raise SessionOver(f"{words.over(state, shown.get('state_reason'))} {again}")
        if state != SessionState.ACTIVE.value:
            raise self._not_active(session, state)
        file = self._sessions.get(session)
        if file is None or file.challenge is None:
            raise NotFound(
                _(
                    "This profile holds no key for the session: it was answered elsewhere. Use it "
                    "there, or end it and ask again from here: {command}"
                ).format(
                    command=f"{advice.command('end', session)} && "
                    f"{self._remedies.ask(str(shown['serial']), service)}"
                )
            )
        if service not in file.asked.services:
            raise NotFound(
                _(
                    "The session covers {services}, not {service}. Ask for both with: {command}"
                ).format(
                    services=", ".join(file.asked.services),
                    service=service,
                    command=self._remedies.wider(session, file.asked, service),
                )
            )
        data = bytes.fromhex(file.challenge)
        return seal.derive(
            private=file.key(),
            peer=challenge.decode(data).key,
            binding=challenge.digest(data),
            session=bytes.fromhex(session),
            role=seal.Role.CLIENT,
        )
