"""Asking for access and answering the injector's challenge (R-ACC-3, R-ACC-4)."""

import base64
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from agent.wire import challenge, seal, sshsig
from agent.wire.catalogue import SessionState
from agent.wire.challenge import Terms
from fleet.client import believe, keys, words
from fleet.client.errors import ClientError, Exit, NotAllowed, NotFound, SessionOver, Unreachable
from fleet.client.portal import JSON, Portal
from fleet.client.profile import Asked, Profile, SessionFile, Sessions

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
        raise Unreachable(f"The portal's {what} cannot be read. Check its address.") from None


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
        self._say = say
        self._sleep = sleep
        self._clock = clock
        self._believed: tuple[bytes, Terms] | None = None

    # --- finding ----------------------------------------------------------------------------------

    def find(self, target: str | None, *, states: set[str] | None = None) -> JSON:
        """The session with this id, or the newest that is open with this injector.

        `states` are those to look for. Raises NotFound, SessionOver.
        """
        if target is None:
            raise ClientError("Name an injector or a session.", Exit.USAGE)
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
        if last is not None and last["state"] in _OVER:
            raise SessionOver(
                f"{words.over(last['state'], last.get('state_reason'))} "
                f"Ask again with: patency request {target}"
            )
        if last is not None:
            raise NotFound(
                f"The session with {target} is {last['state']}, not {' or '.join(sorted(wanted))}."
            )
        raise NotFound(f"You have no session with {target}. Ask with: patency request {target}")

    # --- asking -----------------------------------------------------------------------------------

    def request(self, target: str, asked: Callable[[JSON], Asked]) -> JSON:
        """Ask, and remember what was asked before anything else can go wrong."""
        self._tidy()
        device = self._portal.device(target)
        mine = asked(device)
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
        self._sessions.save(SessionFile(session=str(made["session"]), asked=mine))
        return made

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
                f"The device root at {path} cannot be read ({error}). Get the file from the keeper "
                "of the device root, not from the portal, and name it with: patency login "
                "--device-root FILE"
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
                f"The injector has not answered yet: the session is {shown['state']}. "
                "Try again in a moment, or use: patency request --wait"
            )
        file = self._sessions.get(session) or self._adopt(shown, confirm)
        data, terms = self.believe(shown, file.asked)
        signer = keys.load(self._profile.key_path)
        with self._sessions.locked(session):
            file = self._sessions.get(session) or file
            if file.private_key is None or file.challenge != data.hex():
                private = X25519PrivateKey.generate()
                file = replace(
                    file, private_key=private.private_bytes_raw().hex(), challenge=data.hex()
                )
                self._sessions.save(file)
        public = file.key().public_key().public_bytes_raw()
        signature = sshsig.sign(signer, challenge.to_sign(data, public))
        if terms.presence:
            self._say(
                f"A person at the injector is asked. Compare the code: {challenge.code(data)}"
            )
        return self._portal.answer(session, public, signature)

    def _adopt(self, shown: JSON, confirm: Callable[[Asked], bool]) -> SessionFile:
        """A request made elsewhere, as in the browser: its terms must be read by a person."""
        request = believe.read_request(_bytes(shown["request"], "request"))
        asked = believe.asked_in(request, str(shown["serial"]))
        if asked.specialist != self._profile.specialist:
            raise NotAllowed(f"{asked.specialist} asked for this session; only they may answer.")
        if not confirm(asked):
            raise ClientError("Nothing was signed.")
        return SessionFile(session=str(shown["session"]), asked=asked)

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
                    self._say(f"{session}: {state}")
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
                    f"The session is still {state}. Look again with: patency answer {session}",
                    Exit.TIMED_OUT,
                )
            self._sleep(0.2 if now - start < 20 else 1.0)

    # --- using ------------------------------------------------------------------------------------

    def seal(self, shown: JSON, service: str) -> seal.Seal:
        """The seal of an active session that covers `service`. Raises SessionOver, NotFound."""
        session, state = str(shown["session"]), str(shown["state"])
        if state in _OVER:
            raise SessionOver(words.over(state, shown.get("state_reason")))
        if state != SessionState.ACTIVE.value:
            remedy = f" Answer it with: patency answer {session}" if state == _ANSWERABLE else ""
            raise NotFound(f"The session is not active yet: it is {state}.{remedy}")
        file = self._sessions.get(session)
        if file is None or file.challenge is None:
            raise NotFound(
                "This profile holds no key for the session: it was answered elsewhere. "
                "Use it there, or make a new request."
            )
        if service not in file.asked.services:
            raise NotFound(
                f"The session covers {', '.join(file.asked.services)}, not {service}. "
                f"Ask for it with: patency request {file.asked.serial} --service {service}"
            )
        data = bytes.fromhex(file.challenge)
        return seal.derive(
            private=file.key(),
            peer=challenge.decode(data).key,
            binding=challenge.digest(data),
            session=bytes.fromhex(session),
            role=seal.Role.CLIENT,
        )
