"""What must not get in, with everything real: portal, gate, TLS, enrolment, agent, both databases.

Each attempt is refused at the injector, whatever the portal does (R-ACC-4, R-ACC-6, R-ACC-7), and
stands in the injector's audit chain, in the server's copy of it and in the server's own chain
(R-ACC-10). `tests/agent/access/test_attacks.py` has many more, against the rules alone.
"""

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.errors import ControlError
from agent.wire import challenge
from agent.wire.catalogue import Level, SessionReason, SessionState
from agent.wire.messages import Answer
from fleet.access.models import Session
from fleet.accounts.models import User
from fleet.core import clock
from fleet.enrolment import ca, limits
from fleet.inventory.models import ProductLine, Site
from tests.fleet.mqtt.test_server import in_thread
from tests.whole import PIN, Whole, replay, whole

pytestmark = pytest.mark.django_db(transaction=True)

S, R = SessionState, SessionReason
Make = Callable[..., AbstractAsyncContextManager[Whole]]


@pytest.fixture
def make(
    tmp_path: Path,
    settings: Any,
    owner: User,
    colleague: User,
    product_line: ProductLine,
    site: Site,
) -> Any:
    """make(count=…): so many injectors with their portal."""
    interval = sys.getswitchinterval()
    limits.enrolments.clear()
    ca.init(now=clock.now())
    yield lambda count=1: whole(
        tmp_path,
        settings,
        people=(owner, colleague),
        line=product_line,
        site=site,
        count=count,
    )
    sys.setswitchinterval(interval)


@pytest.fixture
async def here(make: Make) -> AsyncIterator[Whole]:
    """One injector, on line, idle, with a roster and an approver's PIN."""
    async with make() as made:
        yield made


async def _asked_for_ssh(here: Whole) -> str:
    return await here.ask(here.first, level="os", services=["ssh"])


async def test_wrong_key(here: Whole) -> None:
    """R-ACC-4: alice's session, answered with the key of bob, who is on the roster as well."""
    session = await _asked_for_ssh(here)
    await here.answer(session, here.bob)
    await here.refused(here.first, session, R.BAD_SIGNATURE)


async def test_unrostered_key(here: Whole) -> None:
    """R-ACC-4: a good signature by a key that no roster names."""
    session = await _asked_for_ssh(here)
    await here.answer(session, here.mallory)
    await here.refused(here.first, session, R.NOT_ROSTERED)


async def test_edited_level(here: Whole) -> None:
    """R-ACC-4: the portal asks the injector for `os` and shows alice a challenge for `service`."""
    session = await _asked_for_ssh(here)
    terms = challenge.decode(await here.challenged(session))
    assert terms.level is Level.OS
    harmless = msgspec.structs.replace(terms, level=Level.SERVICE)
    await here.answer(session, here.alice, shown=challenge.encode(harmless))
    await here.refused(here.first, session, R.BAD_SIGNATURE)


async def test_replayed(here: Whole) -> None:
    """R-ACC-4: the answer that opened a session opens neither it nor another one again."""
    old = await here.ask(here.first, level="service", services=["web"])
    answered = await here.answer(old, here.alice)
    await here.reached(old, S.ACTIVE)
    await here.end(old)
    await here.reached(old, S.ENDED)

    here.send(here.first, replay(old, answered))
    entry = await here.wrote(here.first, old, "session:answer", "replayed")
    assert entry["actor"] == "portal"
    assert here.first.chain(old)[-1] == entry  # it started nothing
    assert (await here.row(old)).state == S.ENDED.value
    await here.nobody_in(here.first)

    new = await here.ask(here.first, level="service", services=["web"])
    await here.challenged(new)
    await here.pass_on(new, *answered)
    await here.refused(here.first, new, R.BAD_SIGNATURE)


async def test_late(here: Whole) -> None:
    """R-ACC-4: the portal sits on a good answer until its two minutes are over."""
    session = await _asked_for_ssh(here)
    await here.challenged(session)
    with here.holding() as held:
        await here.answer(session, here.alice)
    [answer] = [each for each in held if isinstance(each, Answer)]
    await here.first.ticked()  # so that the answer comes before the injector looks at its clock
    here.first.leap(120)
    here.send(here.first, answer)
    await here.refused(here.first, session, R.LATE)


async def test_late_when_nobody_waits_any_more(here: Whole) -> None:
    """R-ACC-4: and it is worth no more once the session has expired for want of it."""
    session = await _asked_for_ssh(here)
    challenged = await here.challenged(session)
    here.first.leap(120)
    await here.refused(here.first, session, R.NO_ANSWER, S.EXPIRED)
    signature = here.alice.sign(challenged)
    here.send(here.first, replay(session, (here.alice.client_key, signature)))
    await here.wrote(here.first, session, "session:answer", "late")
    assert (await here.row(session)).state == S.EXPIRED.value
    await here.nobody_in(here.first)


async def test_another_devices_challenge(make: Make) -> None:
    """R-ACC-4: alice means the second injector; the portal takes her answer to the first."""
    async with make(count=2) as here:
        first, second = here.injectors
        wanted = await here.ask(second, level="os", services=["ssh"])
        shown = await here.challenged(wanted)
        session = await here.ask(first, level="os", services=["ssh"])
        answered = await here.answer(session, here.alice, shown=shown)
        await here.refused(first, session, R.BAD_SIGNATURE)

        # Or as it is, under the other session's name.
        here.send(first, replay(wanted, answered))
        await here.wrote(first, wanted, "session:answer", "unknown_session")
        await here.nobody_in(first)
        row = await here.row(wanted)
        assert (row.state, row.answered_at) == (S.CHALLENGED.value, None)


async def test_no_approval(here: Whole) -> None:
    """R-ACC-6: nobody at the injector says anything, and that is a no."""
    session = await _asked_for_ssh(here)
    await here.answer(session, here.alice)
    await here.reached(session, S.PRESENCE)
    here.first.leap(300)
    await here.refused(here.first, session, R.NO_APPROVAL, S.EXPIRED)
    with pytest.raises(ControlError):
        await here.first.command("approve", pin=PIN)


async def test_wrong_pin(here: Whole) -> None:
    """R-ACC-6: five wrong PINs refuse the session; the right one comes too late then."""
    session = await _asked_for_ssh(here)
    await here.answer(session, here.alice)
    await here.reached(session, S.PRESENCE)
    for reason in ["wrong_pin"] * 4 + ["pin_locked"]:
        with pytest.raises(ControlError) as refusal:
            await here.first.command("approve", pin="000000")
        assert refusal.value.reason == reason
    await here.refused(here.first, session, R.PIN_LOCKED)
    await here.wrote(here.first, session, "presence:approve", "wrong_pin")
    tries = [e["reason"] for e in here.first.chain(session) if e["action"] == "presence:approve"]
    assert tries == ["wrong_pin"] * 4 + ["pin_locked"]
    with pytest.raises(ControlError):
        await here.first.command("approve", pin=PIN)
    await here.nobody_in(here.first)


async def test_ssh_at_service(here: Whole) -> None:
    """R-ACC-7: a portal that does not look, or lies about what ssh needs, changes nothing."""
    session = await here.ask(
        here.first, level="service", services=["ssh"], pretend={"ssh": "service"}
    )
    await here.refused(here.first, session, R.LEVEL_TOO_LOW)
    assert (await here.row(session)).challenge is None


async def test_armed(here: Whole) -> None:
    """R-ACC-7: from armed on, nobody is even asked."""
    await here.first.command("simulate", fault="armed")
    session = await _asked_for_ssh(here)
    await here.refused(here.first, session, R.IN_USE)
    assert (await here.row(session)).challenge is None


async def test_an_honest_one_gets_in(here: Whole) -> None:
    """That what is refused above is refused for what is wrong with it."""
    session = await _asked_for_ssh(here)
    await here.answer(session, here.alice)
    await here.reached(session, S.PRESENCE)
    assert (await here.first.command("approve", pin=PIN))["state"] == "active"
    await here.reached(session, S.ACTIVE)
    rows = Session.objects.filter(pk=session, receipt__isnull=False, approver=1)
    assert await in_thread(rows.exists)
