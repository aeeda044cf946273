"""What is owed to a device lives in the database until it confirms (R-CON-4, R-CON-5)."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from agent.wire import messages as m
from agent.wire.catalogue import SessionState
from fleet.access import outbound, services
from fleet.access.models import Session
from fleet.accounts.models import User
from fleet.inventory.models import Device
from tests.conftest import Ports
from tests.fleet.access.conftest import CLIENT_KEY
from tests.fleet.access.injector import Injector

S = SessionState
Reach = Callable[..., Session]


def test_a_request_waits_for_an_offline_device(
    transactional_db: None, reach: Reach, device: Device, ports: Ports, now: datetime
) -> None:
    device.online = False
    device.save()
    session = reach(S.REQUESTED)
    ports.sent.clear()
    services.tick(now + timedelta(minutes=5))
    assert ports.sent == []  # nobody is there to send it to
    [owed] = outbound.pending(device)
    assert m.encode(owed) == bytes(session.request)
    services.tick(now + timedelta(minutes=11))
    [end] = outbound.pending(device)  # expired; should the device have it after all, it is told
    assert end == m.End(session=session.pk, reason=m.EndReason.UNREACHABLE)


def test_what_an_online_device_does_not_confirm_goes_out_again(
    transactional_db: None, reach: Reach, ports: Ports, now: datetime
) -> None:
    session = reach(S.REQUESTED)
    ports.sent.clear()
    services.tick(now + timedelta(seconds=2))
    assert ports.sent == []
    services.tick(now + timedelta(seconds=3))
    [(_device, message)] = ports.sent
    assert m.encode(message) == bytes(session.request)


def test_an_answer_is_owed_until_it_is_accepted(
    transactional_db: None,
    reach: Reach,
    injector: Injector,
    owner: User,
    sign: Callable[[Session], m.Proof],
    ports: Ports,
    now: datetime,
) -> None:
    session = reach(S.CHALLENGED)
    assert outbound.pending(injector.device) == []
    services.answer(
        actor=owner, session=session, client_key=CLIENT_KEY, proof=sign(session), now=now
    )
    answer = m.Answer(session=session.pk, client_key=CLIENT_KEY, proof=sign(session))
    assert outbound.pending(injector.device) == [answer]
    ports.sent.clear()
    services.tick(now + timedelta(seconds=3))
    assert ports.sent == [(injector.device.pk, answer)]
    injector.says_accepted("answer", session.pk, answer)
    assert outbound.pending(injector.device) == []


def test_the_devices_verdict_settles_an_answer_too(reach: Reach, injector: Injector) -> None:
    session = reach(S.PRESENCE)
    assert session.answer_accepted_at is not None
    assert outbound.pending(injector.device) == []


def test_an_end_is_not_owed_for_ever(
    reach: Reach, owner: User, device: Device, now: datetime
) -> None:
    session = reach(S.ACTIVE)
    services.end(actor=owner, session=session, now=now - timedelta(days=2))
    assert outbound.pending(device) == []


def test_each_device_is_owed_its_own(
    reach: Reach, device: Device, other_device: Device, django_assert_num_queries: Any
) -> None:
    reach(S.REQUESTED)
    reach(S.REQUESTED, device=other_device)
    with django_assert_num_queries(2):
        assert len(outbound.pending(device)) == 1
