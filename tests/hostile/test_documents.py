"""Whom the injector believes, and what it is entitled to: documents of the trust key (R-ACC-4)."""

from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.wire import chain, entitlement, roster
from agent.wire.catalogue import Level
from agent.wire.messages import EntitlementUpdate, RosterUpdate
from fleet.access.models import Roster
from fleet.audit import keys
from fleet.core import clock
from tests import entitled
from tests.fleet.mqtt.test_server import in_thread
from tests.hostile.stage import Stage
from tests.whole import Specialist, publish
from tests.whole import roster as of

pytestmark = pytest.mark.django_db(transaction=True)


async def _status(stage: Stage, what: str) -> Any:
    return (await stage.injector.command("status"))[what]


def _enlisted(stage: Stage) -> roster.Member:
    """mallory as alice is: every product line, `os`, patient data."""
    return msgspec.structs.replace(
        Specialist(stage.here.alice.user, key=stage.here.mallory.key).member(),
        id="mallory",
        name="mallory",
    )


async def test_a_forged_roster(stage: Stage) -> None:
    """A roster with the attacker on it: signed by a key of its own, by the portal's audit key, and
    under the signature of the true one."""
    made = of(stage.here.alice.member(), _enlisted(stage), version=2)
    audit_key = await in_thread(keys.server_key)
    assert audit_key is not None
    true = await in_thread(lambda: bytes(Roster.objects.get().signature))
    tries = [
        roster.sign(Ed25519PrivateKey.generate(), made),
        roster.sign(audit_key, made),
        (chain.canonical(made), true),
    ]
    for data, signature in tries:
        digest = stage.send(RosterUpdate(roster=data, signature=signature))
        assert await stage.ignored(digest) == "peer"
    assert await _status(stage, "roster_version") == 1
    asked = stage.request("mallory", Level.OS, "ssh")
    stage.send(asked)
    await stage.refused(asked.session, "not_rostered")
    stage.stopped.append("the trust key's signature, checked by the injector; not_rostered")


async def test_an_old_roster(stage: Stage) -> None:
    """bob is taken off the roster; the portal sends the one before, which names him, again."""
    old = await in_thread(Roster.objects.get)
    stolen = RosterUpdate(roster=bytes(old.roster), signature=bytes(old.signature))
    made = of(stage.here.alice.member(), version=2)
    await in_thread(lambda: publish(stage.here.trust, made))
    await stage.has("roster_version", 2)
    digest = stage.send(stolen)
    assert await stage.ignored(digest) == "peer"
    await stage.injector.stop()  # and a restart makes it forget nothing
    await stage.started()
    await stage.has("roster_version", 2)
    assert await stage.ignored(stage.send(stolen), times=2) == "peer"
    asked = stage.request(stage.here.bob.member().id, Level.SERVICE, "web")
    stage.send(asked)
    await stage.refused(asked.session, "not_rostered")
    stage.stopped.append("versions never go back, not over a restart either; not_rostered")


async def test_a_forged_entitlement(stage: Stage) -> None:
    """The contract now covers `service` alone; the portal plays the better one again, signs one
    itself, and takes that of another injector."""
    line, serial = stage.injector.line, stage.injector.serial
    now_ms = clock.to_ms(clock.now())
    trust = stage.here.trust
    old = entitled.update(line, serial, now_ms, key=trust)
    stage.send(entitled.update(line, serial, now_ms, key=trust, version=2, level=Level.SERVICE))
    await stage.caught_up()
    better = entitled.entitlement(line, serial, now_ms, version=3)
    data, signature = entitlement.sign(Ed25519PrivateKey.generate(), better)
    tries = [
        old,
        EntitlementUpdate(entitlement=data, signature=signature),
        EntitlementUpdate(entitlement=data, signature=old.signature),
        entitled.update(line, "SN-other", now_ms, key=trust, version=3),
    ]
    for each in tries:
        assert await stage.ignored(stage.send(each)) == "peer"
    asked = stage.request(stage.here.alice.member().id, Level.OS, "ssh")
    stage.send(asked)
    await stage.refused(asked.session, "not_entitled")
    stage.stopped.append("the trust key's signature, the version and the serial; not_entitled")
