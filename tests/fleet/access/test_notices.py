"""A hospital is told before and after (R-ACC-10): e-mail, and a webhook over real TLS."""

import hashlib
import hmac
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from django.core import mail
from django.test import Client

from agent.wire.catalogue import SessionState
from fleet.access import delivery, notices, services
from fleet.access.models import Notice, NoticeSettings, Session
from fleet.accounts.models import User
from fleet.audit.models import Entry
from fleet.core.errors import Invalid, NotAllowed
from tests.tls import Authority

S = SessionState
Reach = Callable[..., Session]


class Receiver:
    """A hospital's program behind https, with a certificate of its own authority."""

    def __init__(self, authority: Authority) -> None:
        self.calls: list[tuple[dict[str, str], bytes]] = []
        self.status = 204
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.calls.append((dict(self.headers), body))
                self.send_response(outer.status)
                self.send_header("Location", "https://127.0.0.1/elsewhere")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                return None

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.server.load(context)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://localhost:{self.server.server_port}/hook?a=1"


@pytest.fixture
def receiver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Any) -> Iterator[Receiver]:
    authority = Authority()
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.write(tmp_path).server_ca))
    settings.PATENCY_WEBHOOK_PRIVATE = True
    made = Receiver(authority)
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join(5)


def told(session: Session) -> list[str]:
    return list(
        Notice.objects.filter(session=session).order_by("pk").values_list("stage", flat=True)
    )


def test_a_webhook_is_signed_and_told_each_stage_once(
    receiver: Receiver, reach: Reach, member: User, now: datetime
) -> None:
    _chosen, secret = notices.set_up(actor=member, email=False, webhook_url=receiver.url, now=now)
    session = reach(S.PRESENCE)
    for _ in range(2):
        notices.tick(now)
        delivery.deliver(now)
    session.refresh_from_db()
    services.end(actor=member, session=session, now=now)
    notices.tick(now)
    delivery.deliver(now)
    assert told(session) == ["approval", "ended"]
    assert len(receiver.calls) == 2
    headers, body = receiver.calls[1]
    signed = f"{headers['Patency-Timestamp']}.".encode() + body
    mac = hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
    assert headers["Patency-Signature"] == f"v1={mac}"
    said = json.loads(body)
    assert (said["event"], said["session"]) == ("session.ended", session.pk)
    assert said["state_reason"] == "ended_by_hospital"
    assert said["report"].endswith(f"/access/{session.pk}/report.pdf")
    assert "member" not in body.decode()
    sent = Entry.objects.filter(session=session.pk, action="notice:send")
    assert [row.entry["outcome"] for row in sent] == ["allowed", "allowed"]


def test_what_fails_is_tried_again_later_and_switched_off_in_the_end(
    receiver: Receiver, reach: Reach, member: User, now: datetime,
    browser: Callable[[User], Client], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(delivery, "MAX_FAILURES", 3)
    notices.set_up(actor=member, email=False, webhook_url=receiver.url, now=now)
    receiver.status = 302  # which is not followed
    reach(S.REQUESTED)
    notices.tick(now)
    delivery.deliver(now)
    delivery.deliver(now + timedelta(seconds=29))
    assert len(receiver.calls) == 1
    delivery.deliver(now + timedelta(seconds=30))
    delivery.deliver(now + timedelta(seconds=91))
    assert len(receiver.calls) == 3
    chosen = NoticeSettings.objects.get()
    assert chosen.disabled_at is not None
    assert Notice.objects.get().given_up_at is not None
    page = browser(member).get("/notices/").content.decode()
    assert "switched off after many failures: it answered with an error" in page
    delivery.deliver(now + timedelta(hours=1))
    assert len(receiver.calls) == 3
    assert Entry.objects.filter(action="notice:disable").count() == 1


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "10.0.0.1", "169.254.169.254", "[::ffff:10.0.0.1]",
             "192.168.1.1", "0.0.0.0", "2130706433", "224.0.0.1"],
)  # fmt: skip
def test_no_call_goes_where_hospitals_do_not_stand(host: str, settings: Any) -> None:
    settings.PATENCY_WEBHOOK_PRIVATE = False
    with pytest.raises(delivery.UndeliveredError, match="private"):
        delivery.post(f"https://{host}/", b"{}", {})


def test_a_certificate_of_somebody_else_gets_nothing(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = Authority().write(tmp_path / "other").server_ca
    monkeypatch.setenv("SSL_CERT_FILE", str(other))
    with pytest.raises(delivery.UndeliveredError, match="tls"):
        delivery.post(receiver.url, b"{}", {})
    assert receiver.calls == []


def test_an_e_mail_in_the_readers_language(
    reach: Reach, member: User, stranger: User, now: datetime, settings: Any
) -> None:
    settings.PATENCY_SMTP = "localhost:25"
    stranger.email = "elsewhere@example.org"
    stranger.save()
    member.language = "fr-ca"
    member.save()
    notices.set_address(actor=member, address="member@example.org")
    notices.set_up(actor=member, email=True, webhook_url="", now=now)
    session = reach(S.REQUESTED)
    notices.tick(now)
    delivery.deliver(now)
    [sent] = mail.outbox
    assert sent.to == ["member@example.org"]
    assert sent.subject == f"Accès demandé à {session.device.serial}"
    assert f"/access/{session.pk}/" in str(sent.body)


def test_nobody_chose_so_nobody_is_told(reach: Reach, now: datetime) -> None:
    session = reach(S.ENDED)
    notices.tick(now)
    session.refresh_from_db()
    assert (session.told, Notice.objects.count()) == ("ended", 0)


@pytest.mark.parametrize(
    "url", ["http://a.example/", "https://u:p@a.example/", "https:///x", "https://a.example/é",
            "https://a.example:x/", "https://a.example/#f", "ftp://a.example"],
)  # fmt: skip
def test_what_is_no_webhook(member: User, now: datetime, url: str) -> None:
    with pytest.raises(Invalid):
        notices.set_up(actor=member, email=False, webhook_url=url, now=now)


def test_only_the_hospital_sets_its_own(
    owner: User, administrator: User, member: User, stranger: User,
    browser: Callable[[User], Client], now: datetime,
) -> None:  # fmt: skip
    for user in (owner, administrator):
        assert browser(user).get("/notices/").status_code == 403
        with pytest.raises(NotAllowed):
            notices.set_up(actor=user, email=False, webhook_url="", now=now)
    given = {"webhook_url": "https://north.example/hook", "address": "not one"}
    assert browser(member).post("/notices/", given).status_code == 400
    given["address"] = "member@example.org"
    text = browser(member).post("/notices/", given).content.decode()
    secret = NoticeSettings.objects.get().webhook_secret
    assert "shown this once" in text
    assert secret not in text
    assert "north.example" in browser(member).get("/notices/").content.decode()
    assert "shown this once" not in browser(member).get("/notices/").content.decode()
    assert "north.example" not in browser(stranger).get("/notices/").content.decode()
