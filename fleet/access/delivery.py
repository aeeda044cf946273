"""Sending the notices of the outbox: e-mails, and signed calls to webhooks.

A notice is taken by one process for `LEASE`; what fails is tried again with twice the pause, at
most `MAX_ATTEMPTS` times. A webhook that fails `MAX_FAILURES` times in a row is switched off, with
its reason on the hospital's page.

A webhook's address is a hospital's word, and this process stands where hospitals do not (SSRF): it
is resolved here, once, and only a public address is connected to, at that address and no other;
redirects are not followed; and of the answer only the status counts.
"""

import asyncio
import hashlib
import hmac
import http.client
import ipaddress
import json
import logging
import smtplib
import socket
import ssl
import threading
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.mail import EmailMessage
from django.db import DatabaseError, transaction
from django.db.models import F
from django.utils import translation
from django.utils.translation import gettext as _

from agent.wire.catalogue import Outcome
from fleet.access.models import Notice, NoticeSettings, Session
from fleet.access.notices import Stage
from fleet.accounts import sealing
from fleet.audit import services as audit
from fleet.core import clock
from fleet.core.threads import in_thread

EVERY_S = 1.0
AT_ONCE = 20
LEASE = timedelta(minutes=2)
MAX_ATTEMPTS = 8  # over about two hours
FIRST_PAUSE = timedelta(seconds=30)
MAX_FAILURES = 20
CONNECT_S = 5.0
WHOLE_S = 15.0  # for all of one call, however slowly it answers

log = logging.getLogger(__name__)


class UndeliveredError(Exception):
    """It could not be sent; `code` says why: address, private, tls, connection, status, mail."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


async def run() -> None:
    """Send what is due until cancelled."""
    while True:
        try:
            await in_thread(deliver, clock.now())
        except DatabaseError:
            log.warning("notices wait: the database gives no answer")
        await asyncio.sleep(EVERY_S)


def deliver(now: datetime) -> None:
    """Send what is due, one after the other."""
    due = Notice.objects.filter(due_at__lte=now, sent_at=None, given_up_at=None)
    for pk in list(due.order_by("due_at").values_list("pk", flat=True)[:AT_ONCE]):
        if due.filter(pk=pk).update(due_at=now + LEASE, attempts=F("attempts") + 1) == 1:
            notice = Notice.objects.select_related(
                "organisation", "person", "session__device__site", "session__device__product_line",
                "session__organisation", "session__specialist",
            ).get(pk=pk)  # fmt: skip
            _attempt(notice, now)


def _attempt(notice: Notice, now: datetime) -> None:
    try:
        if notice.person is not None:
            _mail(notice)
        else:
            _call(notice, now)
    except UndeliveredError as error:
        _failed(notice, error.code, now)
        return
    with transaction.atomic():
        Notice.objects.filter(pk=notice.pk).update(sent_at=now, trouble="")
        if notice.person is None:
            rows = NoticeSettings.objects.filter(organisation=notice.organisation)
            rows.update(failures=0, trouble="")
        _record(notice, "notice:send", Outcome.ALLOWED, now)


def _failed(notice: Notice, code: str, now: datetime) -> None:
    over = notice.attempts >= MAX_ATTEMPTS
    pause = FIRST_PAUSE * 2 ** (notice.attempts - 1)
    with transaction.atomic():
        Notice.objects.filter(pk=notice.pk).update(
            trouble=code, due_at=now + pause, given_up_at=now if over else None
        )
        if over:
            _record(notice, "notice:send", Outcome.FAILED, now)
        if notice.person is None:
            rows = NoticeSettings.objects.filter(organisation=notice.organisation)
            rows.update(failures=F("failures") + 1, trouble=code)
            if rows.filter(failures__gte=MAX_FAILURES, disabled_at=None).update(disabled_at=now):
                waiting = Notice.objects.filter(
                    organisation=notice.organisation, person=None, sent_at=None, given_up_at=None
                )
                waiting.update(given_up_at=now)
                _record(notice, "notice:disable", Outcome.FAILED, now)


def _record(notice: Notice, action: str, outcome: Outcome, now: datetime) -> None:
    audit.record(
        organisation=notice.organisation,
        actor="portal",
        action=action,
        outcome=outcome,
        device=notice.session.device,
        session=notice.session_id,
        reason="email" if notice.person is not None else "webhook",
        now=now,
    )


# --- e-mail ---------------------------------------------------------------------------------------


def _address(session: Session) -> str:
    origin = settings.PATENCY_ORIGINS[0] if settings.PATENCY_ORIGINS else ""
    return f"{origin}/access/{session.pk}/"


def _mail(notice: Notice) -> None:
    """In the person's language, plain text, nothing secret: whoever reads it must sign in."""
    person, session = notice.person, notice.session
    assert person is not None  # noqa: S101  # the webhook's notices come elsewhere
    with translation.override(person.language):
        said = {
            Stage.ASKED: _("Access to %(serial)s is asked for"),
            Stage.APPROVAL: _("Access to %(serial)s waits for approval at the injector"),
            Stage.ENDED: _("Access to %(serial)s is over"),
        }[Stage(notice.stage)] % {"serial": session.device.serial}
        lines = [
            said + ".",
            "",
            _("Injector: %(what)s") % {"what": session.device.serial},
            _("Specialist: %(what)s") % {"what": session.specialist.display_name},
            _("Reason: %(what)s") % {"what": session.reason_label},
            _("Ticket: %(what)s") % {"what": session.ticket or _("to follow")},
            _("Level: %(what)s") % {"what": session.level_label},
            _("State: %(what)s") % {"what": session.state_label},
            "",
            _("See it, and end it, here: %(url)s") % {"url": _address(session)},
        ]
        if notice.stage == Stage.ENDED:
            lines[-1] = _("Its report is here: %(url)s") % {"url": _address(session) + "report/"}
        mail = EmailMessage(subject=said, body="\n".join(lines) + "\n", to=[person.email])
        try:
            mail.send()
        except (OSError, smtplib.SMTPException, ValueError) as error:
            log.warning("notice %s: the mail server did not take it (%s)", notice.pk, error)
            raise UndeliveredError("mail") from error


# --- webhooks -------------------------------------------------------------------------------------


def body(notice: Notice) -> bytes:
    """What a webhook gets: codes and numbers, nobody of the hospital, no key and no code."""
    session = notice.session
    said: dict[str, Any] = {
        "event": f"session.{notice.stage}",
        "notice": notice.pk,
        "at": clock.to_ms(notice.created_at),
        "session": session.pk,
        "device": session.device_id,
        "serial": session.device.serial,
        "specialist": session.specialist.username,
        "level": session.level,
        "services": session.services,
        "reason": session.reason,
        "ticket": session.ticket or None,
        "state": session.state,
        "state_reason": session.state_reason or None,
        "url": _address(session),
        "report": _address(session) + "report.pdf" if notice.stage == Stage.ENDED else None,
    }
    return json.dumps(said, separators=(",", ":")).encode()


def signature(secret: str, timestamp: int, payload: bytes) -> str:
    """`v1=` and HMAC-SHA256, in hex, over the timestamp (seconds), a full stop, and the body."""
    mac = hmac.new(secret.encode(), f"{timestamp}.".encode() + payload, hashlib.sha256)
    return f"v1={mac.hexdigest()}"


def _call(notice: Notice, now: datetime) -> None:
    chosen = NoticeSettings.objects.filter(organisation=notice.organisation).first()
    if chosen is None or not chosen.webhook_url or chosen.disabled_at is not None:
        raise UndeliveredError("off")
    try:
        secret = sealing.unseal(chosen.webhook_secret)
    except sealing.UnreadableError:
        raise UndeliveredError("secret") from None
    payload, timestamp = body(notice), int(now.timestamp())
    status = post(
        chosen.webhook_url,
        payload,
        {
            "Content-Type": "application/json",
            "User-Agent": "patency",
            "Patency-Notice": str(notice.pk),
            "Patency-Timestamp": str(timestamp),
            "Patency-Signature": signature(secret, timestamp, payload),
        },
    )
    if not 200 <= status < 300:
        raise UndeliveredError("status")


def resolve(host: str, port: int) -> str:
    """The address to connect to. Raises UndeliveredError where any that the name has is not public:
    which of them is taken would be the name's owner's to say."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise UndeliveredError("address") from None
    addresses = [str(info[4][0]).partition("%")[0] for info in found]
    if not addresses:
        raise UndeliveredError("address")
    if not settings.PATENCY_WEBHOOK_PRIVATE and not all(map(_public, addresses)):
        raise UndeliveredError("private")
    return addresses[0]


def _public(text: str) -> bool:
    address = ipaddress.ip_address(text)
    inner = None
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
    addresses = [address] if inner is None else [address, inner]
    return all(it.is_global and not it.is_multicast for it in addresses)


class _Pinned(http.client.HTTPSConnection):
    """Goes to the address that was looked at; the certificate is the name's."""

    def __init__(self, host: str, port: int, address: str, tls: ssl.SSLContext) -> None:
        super().__init__(host, port, timeout=CONNECT_S, context=tls)
        self._pinned, self._tls = (address, port), tls

    def connect(self) -> None:
        plain = socket.create_connection(self._pinned, CONNECT_S)
        try:
            self.sock = self._tls.wrap_socket(plain, server_hostname=self.host)
        except BaseException:
            plain.close()
            raise

    def cut(self) -> None:
        sock = self.sock
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                log.debug("it was closed already")


def post(url: str, payload: bytes, headers: dict[str, str]) -> int:
    """The status that it was answered with. Raises UndeliveredError."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 443
    connection = _Pinned(host, port, resolve(host, port), ssl.create_default_context())
    timer = threading.Timer(WHOLE_S, connection.cut)
    timer.daemon = True
    timer.start()
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request("POST", path, payload, headers)
        return connection.getresponse().status
    except ssl.SSLError as error:
        log.info("webhook of %s: %s", host, error)
        raise UndeliveredError("tls") from error
    except (OSError, http.client.HTTPException) as error:
        raise UndeliveredError("connection") from error
    finally:
        timer.cancel()
        connection.close()
