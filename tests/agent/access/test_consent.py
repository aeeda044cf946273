"""The hospital's policy through a whole agent, from a file to who gets in (R-ACC-7, R-CON-9)."""

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from agent.access import site as sites
from agent.access.site import Document
from agent.errors import ControlError
from agent.main import main
from agent.wire.catalogue import Level, SessionReason, SessionState
from agent.wire.site_policy import Hours, Rule
from tests.agent.access.world import DAY, PIN, World, world
from tests.sites import STRANGER, document

S, R = SessionState, SessionReason


async def offer(w: World, it: Document) -> dict[str, Any]:
    return await w.command("site-policy-offer", document=msgspec.to_builtins(it))


async def hold(w: World, it: Document) -> None:
    waiting = (await offer(w, it))["waiting"]
    await w.command("site-policy-accept", digest=waiting["digest"], pin=PIN)


async def test_a_policy_is_accepted_at_the_panel_and_outlives_a_restart(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        it = document(os="deny")
        waiting = (await offer(w, it))["waiting"]
        assert waiting["fingerprint"] == it.fingerprint
        assert waiting["new_key"]
        assert (await w.command("policy"))["os"] == "ask"
        with pytest.raises(ControlError, match="wrong"):
            await w.command("site-policy-accept", digest=it.digest, pin="999999")
        with pytest.raises(ControlError, match="No such policy"):
            await w.command("site-policy-accept", digest="0" * 64, pin=PIN)
        assert (await w.command("policy"))["os"] == "ask"
        await w.command("site-policy-accept", digest=it.digest, pin=PIN)
        update = await w.reached(w.request(), S.REFUSED)
        assert update.reason is R.POLICY
        await w.stop()
        await w.start()
        update = await w.reached(w.request(), S.REFUSED)
        assert update.reason is R.POLICY
        assert ("policy:accept", "approver-1", "allowed", None) in w.audit()


async def test_what_tightens_ends_a_session_at_once_and_what_loosens_waits(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await hold(w, document())
        session = await w.active()
        shown = await offer(w, document(2, os="deny"))
        assert shown["waiting"] is None
        assert (await w.reached(session, S.ENDED)).reason is R.POLICY
        shown = await offer(w, document(3))
        assert shown["holds"]["version"] == 2
        assert shown["waiting"]["loosens"] == ["os"]
        assert (await w.command("site-policy-decline"))["waiting"] is None


async def test_another_hospitals_key_needs_a_person(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await hold(w, document())
        shown = await offer(w, document(2, key=STRANGER, os="deny"))
        assert shown["waiting"]["new_key"]
        assert shown["holds"]["version"] == 1


async def test_another_hour_is_another_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that may run in these hours ends when others begin."""
    async with world(tmp_path) as w:
        clock = w.agent.clock
        monday = 1_789_948_800_000  # 2026-09-21T00:00Z
        assert sites.minute_of_week("UTC", monday) == 0
        ahead = monday + 14 * DAY - clock.wall_ms()
        real = clock.wall_ms
        shift = -10_000  # seconds before midnight on Sunday
        monkeypatch.setattr(clock, "wall_ms", lambda: real() + ahead + shift)
        await w.rostered()
        await w.entitled()
        mondays = Hours(days=[1], begins=0, ends=0, service=Rule.DENY)
        await hold(w, document(hours=[mondays]))
        session = w.request(level=Level.SERVICE, services=["web"])
        await w.answer(session)
        await w.reached(session, S.ACTIVE)
        shift = 0
        assert (await w.reached(session, S.ENDED)).reason is R.POLICY


async def test_the_panels_own_settings_are_the_hospitals_now(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await hold(w, document(sessions=2))
        with pytest.raises(ControlError, match="hospital's signed policy"):
            await w.command("policy-set", policy={"sessions": 4}, pin=PIN)
        await w.command("remote-off")
        assert (await w.command("policy"))["remote"] is False
        assert (await w.command("policy"))["sessions"] == 2


async def test_the_command_line_at_the_injector(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        path = tmp_path / "signed.json"
        it = document(os="deny")
        path.write_bytes(msgspec.json.encode(it))

        def run(*words: str) -> Any:
            done = CliRunner().invoke(
                main, ["site-policy", *words, "--state", str(w.state), "-o", "json"]
            )
            return json.loads(done.stdout)

        shown = await asyncio.to_thread(run, str(path))
        assert shown["waiting"]["fingerprint"] == it.fingerprint
        wrong = await asyncio.to_thread(run, "--accept", "--fingerprint", "0" * 5, "--pin", PIN)
        assert wrong["error"] == "fingerprint"
        shown = await asyncio.to_thread(
            run, "--accept", "--fingerprint", it.fingerprint, "--pin", PIN
        )
        assert shown["holds"]["version"] == 1
        path.write_text("no policy")
        assert "error" in await asyncio.to_thread(run, str(path))
