"""What must hold before anyone gets in, as pure questions. Each answers None or why not.

In order (R-ACC-4, R-ACC-6, R-ACC-7; the first that fails is the one that is told):

 1. remote connection is switched on at the panel               REMOTE_OFF
 2. the audit chain can be written                              AUDIT_UNWRITABLE
 3. the request is for this injector                            WRONG_DEVICE
 4. the driver names every service asked for                    UNKNOWN_SERVICE
 5. the level asked for covers each of them                     LEVEL_TOO_LOW
 6. the specialist is on the roster                             NOT_ROSTERED
 7. the roster is valid now                                     ROSTER_EXPIRED
 8. product line, level and patient data are in their scope     OUT_OF_SCOPE
 9. their vetting and training have not ended                   UNTRAINED
10. the injector's entitlement covers the level, or its grace   NOT_ENTITLED
11. the site's policy does not deny the level                   POLICY
12. and takes what the specialist works with                    COMMAND_LINE_ONLY

That a request is new, that nobody else is here, and the clinical state, are the desk's to know.
1, 2, 6–12 are asked again when the answer comes and when a person approves.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.access.policy import Policy, Rule
from agent.wire.catalogue import Level, ProductLineCode, SessionReason
from agent.wire.entitlement import Entitlement
from agent.wire.messages import AccessRequest
from agent.wire.roster import Member, Roster


@dataclass(slots=True)
class Facts:
    """What the desk goes by. The shell keeps it true."""

    device: str
    product_line: ProductLineCode
    boot: str  # 32 hex digits
    services: Mapping[str, Level]  # as the driver names them
    policy: Policy = field(default_factory=Policy)
    roster: Roster | None = None
    entitlement: Entitlement | None = None
    audit_writable: bool = True
    access_origin: str | None = None  # where access passkeys belong; None: they are not taken
    passkey_uses: dict[bytes, int] = field(default_factory=dict)  # id: counter of its last use


def why_not(request: AccessRequest, facts: Facts, wall_ms: int) -> SessionReason | None:
    """Conditions 1 to 12 for a request that just came."""
    if (reason := _closed(facts)) is not None:
        return reason
    if request.device != facts.device:
        return SessionReason.WRONG_DEVICE
    needed = [facts.services.get(name) for name in request.services]
    for level in needed:
        if level is None:
            return SessionReason.UNKNOWN_SERVICE
    if not all(level is not None and request.level.covers(level) for level in needed):
        return SessionReason.LEVEL_TOO_LOW
    return _not_believed(request, facts, wall_ms)


def still_not(request: AccessRequest, facts: Facts, wall_ms: int) -> SessionReason | None:
    """What may have changed since: conditions 1, 2 and 6 to 12."""
    return _closed(facts) or _not_believed(request, facts, wall_ms)


def member(request: AccessRequest, facts: Facts) -> Member | None:
    return facts.roster.member(request.specialist) if facts.roster else None


def covered(who: Member, request: AccessRequest, facts: Facts) -> bool:
    """Whether the roster lets this person do this here, whatever the time."""
    # Nobody can see a file system and be kept from the patient data in it (R-ACC-2, R-PRV-1).
    data = who.patient_data or request.level is not Level.OS
    return data and facts.product_line in who.product_lines and who.level.covers(request.level)


def _closed(facts: Facts) -> SessionReason | None:
    if not facts.policy.remote:
        return SessionReason.REMOTE_OFF
    if not facts.audit_writable:
        return SessionReason.AUDIT_UNWRITABLE
    return None


def _not_believed(request: AccessRequest, facts: Facts, wall_ms: int) -> SessionReason | None:
    who = member(request, facts)
    if facts.roster is None or who is None:
        return SessionReason.NOT_ROSTERED
    if wall_ms >= facts.roster.expires_at:
        return SessionReason.ROSTER_EXPIRED
    if not covered(who, request, facts):
        return SessionReason.OUT_OF_SCOPE
    if wall_ms >= who.until:
        return SessionReason.UNTRAINED
    if facts.entitlement is None or not facts.entitlement.covers(request.level, wall_ms):
        return SessionReason.NOT_ENTITLED
    if facts.policy.rule(request.level) is Rule.DENY:
        return SessionReason.POLICY
    if not facts.policy.takes(request.client, request.level):
        return SessionReason.COMMAND_LINE_ONLY
    return None
