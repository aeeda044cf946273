"""Access through a whole agent at the real gate: what the portal, the disk and the sockets see."""

import asyncio
import contextlib
import sqlite3
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256

from agent import remote, room
from agent.access import ledger
from agent.access.effects import Keep
from agent.drivers import Service
from agent.errors import AuditUnwritable, ControlError
from agent.wire import challenge, roster
from agent.wire.catalogue import ClinicalState, Level, SessionReason, SessionState
from agent.wire.messages import Accepted, Audit, Receipt, Remote, RosterUpdate
from broker.errors import Reason
from tests.agent.access.simulator import Specialist
from tests.agent.access.world import DAY, PIN, world
from tests.agent.support import TRUST_KEY
from tests.agent.test_streams import echo, listening
from tests.entitled import update

S, R = SessionState, SessionReason


async def test_a_specialist_gets_in_and_out_again(tmp_path: Path) -> None:
    """R-ACC-3..7, R-ACC-10, R-CON-4: the whole way, over TLS and the gate, to a loopback port."""
    async with listening(echo) as port, world(tmp_path) as w:
        w.ports = {"ssh": Service(Level.OS, port)}
        session = await w.active()
        states = [u.state for u in w.updates(session)]
        assert states == [S.CHALLENGED, S.PRESENCE, S.ACTIVE]
        client = await w.client(session)
        await client.open(1, "ssh")
        client.mux.send(1, b"uname -a")
        await client.until(lambda: bytes(client.data) == b"uname -a")
        began = time.monotonic()
        w.end(session)
        ended = await w.reached(session, S.ENDED)
        assert time.monotonic() - began < 2
        assert ended.reason is R.ENDED_BY_PORTAL
        kinds = [a.of for a in w.portal.of(Accepted) if a.ref == session]
        assert kinds == ["access-request", "answer", "end"]
        assert [entry[0] for entry in w.audit(session)] == [
            "session:challenge",
            "session:answer",
            "presence:approve",
            "session:start",
            "session:end",
        ]
        sent = [e.action for a in w.portal.of(Audit) for e in a.entries if e.session == session]
        assert sent == [entry[0] for entry in w.audit(session)]  # the server has the same


async def test_the_challenge_is_signed_by_the_injector(tmp_path: Path) -> None:
    """R-ACC-4"""
    async with world(tmp_path) as w:
        sent = await w.challenge(w.request())
        leaf = x509.load_der_x509_certificate(sent.certificates[0])
        key = leaf.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        key.verify(sent.signature, sent.challenge, ec.ECDSA(SHA256()))
        assert len(sent.certificates) == 2
        assert challenge.decode(sent.challenge).boot == w.agent.clock.boot


async def test_the_receipt_is_signed_and_names_its_audit_entry(tmp_path: Path) -> None:
    """R-ACC-6, R-PRV-1"""
    async with world(tmp_path) as w:
        session = await w.active()
        (sent,) = await w.portal.until(lambda: w.portal.of(Receipt))
        key = w.agent.identity.audit_key.public_key()
        proof = challenge.verify_receipt(sent.receipt, sent.signature, key)
        challenged = await w.challenge(session)
        assert proof.challenge == challenge.digest(challenged.challenge).hex()
        assert (proof.session, proof.approver) == (session, 1)
        assert w.audit()[proof.index][:2] == ("presence:approve", "approver-1")


async def test_wrong_pin_locks_and_refuses(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session = w.request()
        await w.answer(session)
        await w.reached(session, S.PRESENCE)
        for left in (4, 3, 2, 1):
            with pytest.raises(ControlError, match=str(left)) as caught:
                await w.command("approve", pin="000000")
            assert caught.value.reason == "wrong_pin"
        with pytest.raises(ControlError) as caught:
            await w.command("approve", pin="000000")
        assert caught.value.reason == "pin_locked"
        assert (await w.reached(session, S.REFUSED)).reason is R.PIN_LOCKED
        again = w.request()
        await w.answer(again)
        await w.reached(again, S.PRESENCE)
        with pytest.raises(ControlError) as caught:
            await w.command("approve", pin=PIN)
        assert caught.value.reason == "pin_locked"
        assert (await w.reached(again, S.REFUSED)).reason is R.PIN_LOCKED


async def test_in_use_it_waits_rings_holds_and_goes_on(tmp_path: Path) -> None:
    """R-ACC-7"""
    async with listening(echo) as port, world(tmp_path) as w:
        w.ports = {"ssh": Service(Level.OS, port)}
        w.driver.state = ClinicalState.READY
        w.agent.look()
        session = w.request()
        assert (await w.reached(session, S.WAITING)).reason is R.IN_USE
        assert (await w.command("no-patient"))["state"] == "service"
        await w.answer(session)
        await w.reached(session, S.PRESENCE)
        await w.command("approve", pin=PIN)
        await w.reached(session, S.ACTIVE)
        client = await w.client(session)
        await client.open(1, "ssh")
        w.driver.state = ClinicalState.FILLING
        w.agent.look()
        client.mux.send(1, b"held")
        client.turn()
        await w.portal.until(lambda: w.updates(session)[-1].reason is R.BECAME_IN_USE)
        assert bytes(client.data) == b""
        w.driver.state = ClinicalState.COMPLETE
        w.agent.look()
        await client.until(lambda: bytes(client.data) == b"held")
        assert ("clinical:no_patient", "panel", "allowed", None) in w.audit()


async def test_in_use_at_approval(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session = w.request()
        await w.answer(session)
        await w.reached(session, S.PRESENCE)
        w.driver.state = ClinicalState.READY
        w.agent.look()
        with pytest.raises(ControlError) as caught:
            await w.command("approve", pin=PIN)
        assert caught.value.reason == "in_use"


async def test_stop_closes_the_sockets_at_once(tmp_path: Path) -> None:
    gone = asyncio.Event()

    async def held(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
        finally:
            gone.set()

    async with listening(held) as port, world(tmp_path) as w:
        w.ports = {"ssh": Service(Level.OS, port)}
        session = await w.active()
        client = await w.client(session)
        await client.open(1, "ssh")
        began = time.monotonic()
        answer = await w.command("stop")
        async with asyncio.timeout(2):
            await gone.wait()
        assert time.monotonic() - began < 2
        assert answer == {"session": session, "state": "ended", "reason": "stopped_at_panel"}
        assert (await w.reached(session, S.ENDED)).reason is R.STOPPED_AT_PANEL


async def test_refuse(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session = w.request()
        await w.answer(session)
        await w.reached(session, S.PRESENCE)
        answer = await w.command("refuse", session=session, pin=None)
        assert answer["reason"] == "refused_at_panel"
        with pytest.raises(ControlError) as caught:
            await w.command("refuse")
        assert caught.value.reason == "nothing_to_do"


async def test_remote_connection_off_and_on(tmp_path: Path) -> None:
    """R-CON-9: off ends what is open, tells the portal, says goodbye and stays over a restart; only
    a PIN at the injector switches it on again."""
    async with world(tmp_path) as w:
        session = await w.active()
        assert (await w.command("remote-off"))["remote"] is False
        assert (await w.reached(session, S.ENDED)).reason is R.REMOTE_OFF
        (said,) = w.portal.of(Remote)
        assert said.enabled is False
        await w.portal.until(lambda: w.portal.disconnects == [Reason.DISCONNECTED])
        assert w.agent.outbox.depth == 0  # nothing was cut off by the goodbye
        with pytest.raises(ControlError):
            await w.command("remote-on", pin="999999")
        assert ("pin:check", "panel", "refused", "wrong_pin") in w.audit()
        with pytest.raises(ControlError):
            await w.command("remote-on")
        await w.stop()
        w.launch()
        async with asyncio.timeout(10):
            while "device" not in w.agent.status():  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        shown = await w.command("status")
        assert (await w.command("policy"))["remote"] is False
        assert "switched off" in shown["trouble"]
        await asyncio.sleep(0.5)  # long enough to connect, many times over
        assert not w.portal.gate.connections
        assert w.portal.connects == 1
        assert (await w.command("remote-on", pin=PIN))["remote"] is True
        assert ("remote:on", "approver-1", "allowed", None) in w.audit()
        await w.portal.until(lambda: [m.enabled for m in w.portal.of(Remote)] == [False, True])
        await w.reached(w.request(), S.CHALLENGED)


async def test_remote_connection_off_with_a_portal_that_does_not_answer(tmp_path: Path) -> None:
    """R-CON-9: nothing at the other end keeps a person from switching off."""
    async with world(tmp_path) as w:
        w.portal.deciding = False
        with patch.object(remote, "GOODBYE_S", 0.3):
            assert (await w.command("remote-off"))["remote"] is False
        await w.portal.until(lambda: not w.portal.gate.connections)
        assert w.portal.of(Remote) == []
        w.portal.back()


async def test_the_policy_is_set_with_a_pin(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        assert (await w.command("policy"))["approval_wait_s"] == 300
        changed = await w.command("policy-set", pin=PIN, policy={"approval_wait_s": 60})
        assert changed["approval_wait_s"] == 60
        for bad in ({"os": "allow"}, {"approval_wait_s": 3600}, {"nonsense": 1}, "text"):
            with pytest.raises(ControlError):
                await w.command("policy-set", pin=PIN, policy=bad)
        with pytest.raises(ControlError):
            await w.command("policy-set", policy={"approval_wait_s": 600})
        assert (await w.command("policy"))["approval_wait_s"] == 60


@pytest.mark.parametrize("fields", [{"session": 5}, {"pin": 5}, {"pin": ""}, {}])
async def test_commands_that_make_no_sense(tmp_path: Path, fields: dict[str, Any]) -> None:
    async with world(tmp_path) as w:
        session = w.request()
        await w.answer(session)
        await w.reached(session, S.PRESENCE)
        with pytest.raises(ControlError) as caught:
            await w.command("approve", **fields)
        assert caught.value.reason in ("malformed", "pin_missing")
        for wrong in ({"approver": "1"}, {"approver": True}, {"approver": 0}, {"pin": "12"}):
            with pytest.raises(ControlError):
                await w.command("pin-set", **{"approver": 1, "pin": PIN, **wrong})
        assert w.access.desk.session(session) is not None


async def test_nobody_has_a_pin_yet(tmp_path: Path) -> None:
    async with world(tmp_path, ready=False) as w:
        await w.rostered()
        session = w.request()
        await w.answer(session)
        await w.reached(session, S.PRESENCE)
        with pytest.raises(ControlError) as caught:
            await w.command("approve", pin=PIN)
        assert caught.value.reason == "no_pin"


# --- the roster ----------------------------------------------------------------------------------


async def test_a_roster_is_kept_over_a_restart(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.portal.until(lambda: [a for a in w.portal.of(Accepted) if a.of == "roster"])
        assert ("roster:update", "portal", "allowed", None) in w.audit()
        await w.stop()
        await w.start()
        await w.reached(w.request(), S.CHALLENGED)
        assert w.access.roster.version == 1


async def test_rosters_that_must_not_be_believed(tmp_path: Path) -> None:
    """R-ACC-4, R-ACC-9: the trust key signs, versions do not go back, seven days at most."""
    async with world(tmp_path, ready=False) as w:
        await w.rostered(w.roster(version=5))
        forged = Ed25519PrivateKey.generate()
        mallory = Specialist("mallory").member()
        now = w.agent.clock.wall_ms()
        good = roster.Roster(version=9, issued_at=now, expires_at=now + DAY, members=[mallory])
        data, signature = roster.sign(forged, good)
        bad = [
            RosterUpdate(roster=data, signature=signature),
            w.roster(mallory, version=4),
            w.roster(mallory, version=5),
            w.roster(mallory, version=6, expires_at=now - 1),
            w.roster(mallory, version=7, expires_at=now + 8 * DAY),
        ]
        for update in bad:
            w.portal.send(update)
        await w.portal.until(lambda: sum(a[0] == "message:ignore" for a in w.audit()) == len(bad))
        assert w.access.roster.version == 5
        refused = w.request(specialist="mallory")
        assert (await w.reached(refused, S.REFUSED)).reason is R.NOT_ROSTERED
        accepted = [a for a in w.portal.of(Accepted) if a.of == "roster"]
        assert len(accepted) == 1


async def test_entitlements_that_must_not_be_believed(tmp_path: Path) -> None:
    """R-ACC-9: the trust key signs it, for this very injector, and versions do not go back."""
    async with world(tmp_path, ready=False) as w:
        await w.rostered()
        await w.entitled(version=5)
        line, serial, now = "ct-dual", w.agent.identity.provision.serial, w.agent.clock.wall_ms()
        bad = [
            update(line, serial, now, version=6, key=Ed25519PrivateKey.generate()),
            update(line, "S-OTHER", now, version=6, key=TRUST_KEY),
            update("mr-dual", serial, now, version=6, key=TRUST_KEY),
            update(line, serial, now, version=4, key=TRUST_KEY),
            update(line, serial, now, version=5, grace_days=90, key=TRUST_KEY),
        ]
        for message in bad:
            w.portal.send(message)
        await w.portal.until(lambda: sum(a[0] == "message:ignore" for a in w.audit()) == len(bad))
        assert w.access.entitlement.version == 5
        assert len([a for a in w.portal.of(Accepted) if a.of == "entitlement"]) == 2


async def test_an_entitlement_is_kept_over_a_restart(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.stop()
        await w.start()
        await w.portal.until(lambda: w.access.entitlement.version == 1)
        await w.active()


async def test_the_same_roster_again_is_accepted_again(tmp_path: Path) -> None:
    async with world(tmp_path, ready=False) as w:
        update = w.roster()
        await w.rostered(update)
        w.portal.send(update)
        await w.portal.until(
            lambda: len([a for a in w.portal.of(Accepted) if a.of == "roster"]) == 2
        )
        assert sum(a[0] == "roster:update" for a in w.audit()) == 1


async def test_dropped_from_the_roster_is_out_within_two_seconds(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session = await w.active()
        began = time.monotonic()
        w.portal.send(w.roster(Specialist("bob").member()))
        assert (await w.reached(session, S.ENDED)).reason is R.NOT_ROSTERED
        assert time.monotonic() - began < 2


async def test_a_roster_on_disk_that_was_tampered_with(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.stop()
        connection = sqlite3.connect(w.state / "agent.db")
        connection.execute("UPDATE roster SET data = replace(data, 'alice', 'malle')")
        connection.commit()
        connection.close()
        await w.start()
        refused = w.request(specialist="malle")
        assert (await w.reached(refused, S.REFUSED)).reason is R.NOT_ROSTERED


# --- faults --------------------------------------------------------------------------------------


async def test_a_restart_reports_what_it_ended(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session = await w.active()
        await w.stop()  # in good order
        await w.start()
        ended = await w.reached(session, S.ENDED)
        assert ended.reason is R.AGENT_RESTARTED
        assert [u.state for u in w.updates(session)].count(S.ENDED) == 1


async def test_a_crash_reports_what_it_ended(tmp_path: Path) -> None:
    """As kill -9 leaves it: the ledger says ACTIVE."""
    async with world(tmp_path) as w:
        await w.stop()
        connection = sqlite3.connect(w.state / "agent.db")
        ledger.keep(connection, Keep("c" * 32, "d" * 64, "alice", S.ACTIVE))
        connection.commit()
        connection.close()
        await w.start()
        ended = await w.reached("c" * 32, S.ENDED)
        assert (ended.request, ended.reason) == ("d" * 64, R.AGENT_RESTARTED)
        again = w.request(session="c" * 32)
        assert (await w.reached(again, S.REFUSED)).reason is R.REPLAYED


async def test_no_one_gets_in_when_the_audit_chain_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-ACC-10: the approval is right, the disk is full; no socket opens, and it is told later."""
    monkeypatch.setattr("agent.access.shell.RETRY_S", 0.1)
    async with world(tmp_path) as w:
        session = w.request()
        await w.answer(session)
        await w.reached(session, S.PRESENCE)
        real = w.agent.audit.record
        full = True

        def record(action: str, **fields: Any) -> asyncio.Future[Any]:
            if not full:
                return real(action, **fields)
            failed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            failed.set_exception(AuditUnwritable("full"))
            failed.exception()
            return failed

        monkeypatch.setattr(w.agent.audit, "record", record)
        with pytest.raises(ControlError):
            await w.command("approve", pin=PIN)
        assert w.agent.get(type(w.access._streams))._channels == {}
        assert w.access.desk.facts.audit_writable is False
        assert [u.state for u in w.updates(session)][-1] is S.PRESENCE
        full = False
        ended = await w.reached(session, S.ENDED)
        assert ended.reason is R.AUDIT_UNWRITABLE
        await w.portal.until(lambda: w.access.desk.facts.audit_writable)
        assert ("audit:resume", "agent", "allowed", None) in w.audit()
        await w.active()


async def test_when_the_disk_runs_out_of_room_sessions_end_while_it_can_be_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-ACC-10: nobody is let in, and both sides hold the record of why."""
    monkeypatch.setattr("agent.access.shell.RETRY_S", 0.1)
    free, gigabyte = 10**9, 10**9
    monkeypatch.setattr(
        room.Reserve.__init__, "__kwdefaults__", {"size": 10**6, "free": lambda folder: free}
    )
    monkeypatch.setattr("agent.room.LOOK_S", 0.05)
    async with world(tmp_path) as w:
        session = await w.active()
        free = 10**6 // 2
        assert (await w.reached(session, S.ENDED)).reason is R.AUDIT_UNWRITABLE
        again = w.request()
        assert (await w.reached(again, S.REFUSED)).reason is R.AUDIT_UNWRITABLE
        for ended, action in ((session, "session:end"), (again, "session:refuse")):
            last = w.audit(ended)[-1]
            assert (last[0], last[3]) == (action, "audit_unwritable")
        free = gigabyte
        await w.portal.until(lambda: w.access.desk.facts.audit_writable)
        await w.active()


async def test_a_stop_while_the_disk_works_on_the_approval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stop comes between the decision and its record being on disk: nothing opens afterwards."""
    async with world(tmp_path) as w:
        session = w.request()
        await w.answer(session)
        await w.reached(session, S.PRESENCE)
        real = w.agent.audit.record
        slow = asyncio.Event()

        def record(action: str, **fields: Any) -> asyncio.Future[Any]:
            written = real(action, **fields)
            if action != "session:start":
                return written

            async def later() -> Any:
                await slow.wait()
                return await written

            return asyncio.ensure_future(later())

        monkeypatch.setattr(w.agent.audit, "record", record)
        approving = asyncio.create_task(w.command("approve", pin=PIN))
        await w.portal.until(lambda: w.access.desk.session(session).state is S.ACTIVE)  # type: ignore[union-attr]
        stopping = asyncio.create_task(w.command("stop"))
        await w.portal.until(lambda: w.access.desk.session(session).state is S.ENDED)  # type: ignore[union-attr]
        slow.set()
        await stopping
        with contextlib.suppress(ControlError):
            await approving
        await w.reached(session, S.ENDED)
        assert w.access._streams._channels == {}


async def test_the_ledger_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "KEPT", 10)
    connection = sqlite3.connect(":memory:")
    ledger.open_ledger(connection)
    for n in range(30):
        ledger.keep(connection, Keep(f"{n:032x}", "d" * 64, "alice", S.ACTIVE))
        ledger.keep(connection, Keep(f"{n:032x}", "d" * 64, "alice", S.ENDED))
    kept = ledger.open_ledger(connection)
    assert [k.session for k in kept] == [f"{n:032x}" for n in range(20, 30)]
    assert {k.state for k in kept} == {S.ENDED}


# --- watching ------------------------------------------------------------------------------------


async def test_the_panel_is_told_as_it_happens(tmp_path: Path) -> None:
    """R-ACC-6: who, why, what, how long, and the code that the specialist sees as well."""
    async with world(tmp_path) as w, w.watching() as read:
        view = await read()
        assert (view["serial"], view["remote"], view["has_pin"]) == ("SN-0001", True, True)
        assert view["sessions"] == []
        session = w.request(note="Pump noise", ticket="T-9")
        await w.answer(session)
        while not (view["sessions"] and view["sessions"][0]["state"] == "presence"):
            view = await read()
        while view["sessions"][0]["code"] is None:
            view = await read()
        shown = view["sessions"][0]
        assert shown["code"] == challenge.code((await w.challenge(session)).challenge)
        assert (shown["name"], shown["ticket"], shown["note"]) == ("Alice", "T-9", "Pump noise")
        await w.command("approve", session=session, pin=PIN)
        while view["sessions"][0]["state"] != "active":
            view = await read()
        w.driver.state = ClinicalState.READY
        w.agent.look()
        while not view["sessions"][0]["paused"]:
            view = await read()
        assert view["in_use"] is True


async def test_status_says_how_access_stands(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        status = await w.command("status")
        assert (status["remote"], status["sessions"], status["roster_version"]) == (True, 0, 1)
        await w.answer(w.request())  # somebody waits for a person's approval
        status = await w.command("status")
        assert (status["sessions"], status["sessions_waiting"]) == (0, 1)
