"""Whatever the order of events, honest or not: the rules of the desk hold (R-ACC-4, 6, 7, 10)."""

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from agent.access.effects import Activate, Deactivate, Emit, Keep, Record, SendReceipt
from agent.access.pins import Verdict
from agent.access.policy import Policy, Rule
from agent.wire import challenge
from agent.wire.catalogue import SESSION_TRANSITIONS, ClinicalState, Level, SessionState
from agent.wire.messages import EndReason, SessionUpdate
from tests.agent.access.simulator import Bench

S = SessionState


class AnyOrder(RuleBasedStateMachine):
    sessions = Bundle("sessions")

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(policy=Policy(approval_wait_s=60, idle_s=120, renewal_s=300))
        self.signed: set[str] = set()  # sessions whose challenge alice signed, in time
        self.approved: set[str] = set()  # for which a right PIN came while they waited for one
        self.clinical = ClinicalState.IDLE
        self.checked = 0
        self.states: dict[str, SessionState] = {}
        self.active: set[str] = set()

    # --- events ----------------------------------------------------------------------------------

    @rule(
        target=sessions,
        level=st.sampled_from(Level),
        service=st.sampled_from(["ssh", "web", "logs", "nothing"]),
        who=st.sampled_from(["alice", "alice", "alice", "mallory"]),
        life=st.sampled_from([60, 600, 7200]),
    )
    def request(self, level: Level, service: str, who: str, life: int) -> Any:
        asked = self.bench.ask(level=level, services=[service], specialist=who, life_s=life)
        self.bench.request(asked)
        return asked.session

    @rule(target=sessions)
    def usual_request(self) -> str:
        return self.bench.request()

    @rule(session=sessions)
    def right_answer(self, session: str) -> None:
        it = self.bench.desk.session(session)
        if it is not None and it.state is S.CHALLENGED:
            self.signed.add(session)
        if self._challenged(session):
            self.bench.answer(session)

    @rule(session=sessions, kind=st.sampled_from(["bob", "mallory", "level", "key", "weak"]))
    def wrong_answer(self, session: str, kind: str) -> None:
        bench = self.bench
        if not self._challenged(session):
            return
        if kind == "level":
            terms = challenge.decode(bench.challenge(session))
            other = Level.SERVICE if terms.level is not Level.SERVICE else Level.OS
            bench.answer_edited(session, level=other)
        elif kind == "key":
            bench.answer_with_own_key(session)
        elif kind == "weak":
            bench.answer_with_weak_key(session)
        else:
            bench.answer_as(getattr(bench, kind), session)

    @rule(session=sessions, pin=st.sampled_from(["right", "wrong", "locked"]))
    def approve(self, session: str, pin: str) -> None:
        it = self.bench.desk.session(session)
        waiting = it is not None and it.state is S.PRESENCE
        verdict = Verdict(1) if pin == "right" else Verdict(None, locked=pin == "locked", left=1)
        if waiting and pin == "right" and not self.clinical.in_use:
            self.approved.add(session)
        self.bench.approve(session, verdict)

    @rule(target=sessions)
    def all_the_way(self) -> Any:
        """The right things in the right order, so that ACTIVE is not a rarity."""
        session = self.bench.request()
        if self._challenged(session):
            self.right_answer(session)
            self.approve(session, "right")
        return multiple(session)

    @rule(session=sessions, whom=st.sampled_from(["one", "all"]), what=st.sampled_from("rs"))
    def panel(self, session: str, whom: str, what: str) -> None:
        act = self.bench.refuse if what == "r" else self.bench.stop
        act(session if whom == "one" else None)

    @rule(session=sessions, reason=st.sampled_from(EndReason))
    def end(self, session: str, reason: EndReason) -> None:
        self.bench.end(session, reason)

    @rule(state=st.sampled_from(ClinicalState))
    def clinic(self, state: ClinicalState) -> None:
        self.clinical = state
        self.bench.clinical(state)

    @rule(seconds=st.sampled_from([0.5, 30, 59, 61, 121, 301, 4000]))
    def time(self, seconds: float) -> None:
        self.bench.later(seconds)

    @rule(session=sessions, size=st.integers(0, 3))
    def bytes_move(self, session: str, size: int) -> None:
        it = self.bench.desk.session(session)
        if it is not None:
            self.bench.moved(session, it.bytes_up + size, it.bytes_down)

    @rule(os=st.sampled_from(["ask", "deny"]), service=st.sampled_from(Rule))
    def policy(self, os: Any, service: Rule) -> None:
        self.bench.policy(os=os, service=service)

    @rule(remote=st.booleans())
    def switch(self, remote: bool) -> None:
        self.bench.policy(remote=remote)

    @rule(with_alice=st.booleans())
    def new_roster(self, with_alice: bool) -> None:
        bench = self.bench
        bench.roster(*([bench.alice.member()] if with_alice else []), bench.bob.member())

    # --- rules -----------------------------------------------------------------------------------

    @invariant()
    def what_was_done_was_allowed(self) -> None:
        effects = self.bench.done[self.checked :]
        self.checked = len(self.bench.done)
        for effect in effects:
            if isinstance(effect, Emit) and effect.kind is SessionUpdate:
                self._update(effect.fields["session"], effect.fields["state"])
            elif isinstance(effect, Activate):
                assert effect.session not in self.active
                self.active.add(effect.session)
            elif isinstance(effect, Deactivate):
                self.active.discard(effect.session)

    def _update(self, session: str, state: SessionState) -> None:
        before = self.states.get(session, S.REQUESTED)
        assert state is before is S.ACTIVE or state in SESSION_TRANSITIONS[before]
        self.states[session] = state
        if state in (S.ACTIVE, S.PRESENCE):
            assert session in self.signed
        it = self.bench.desk.session(session)
        if state is S.ACTIVE and it is not None and it.level is Level.OS:
            assert session in self.approved

    @invariant()
    def sockets_are_open_for_active_sessions_alone(self) -> None:
        self.what_was_done_was_allowed()
        assert self.active == {s.id for s in self.bench.desk.open if s.state is S.ACTIVE}

    @invariant()
    def nobody_moves_bytes_while_the_injector_is_in_use(self) -> None:
        for session in self.bench.desk.open:
            if session.state is S.ACTIVE:
                assert session.paused == self.clinical.in_use

    @invariant()
    def every_change_is_recorded_and_told(self) -> None:
        kept = sum(isinstance(e, Keep) for e in self.bench.done)
        records = sum(isinstance(e, Record | SendReceipt) for e in self.bench.done)
        told = sum(isinstance(e, Emit) and e.kind is SessionUpdate for e in self.bench.done)
        assert records >= kept
        assert told >= kept

    @invariant()
    def keys_are_held_only_while_they_are_needed(self) -> None:
        book = self.bench.desk._book
        for session in [*book.open, *book.over]:
            assert (session.private is not None) == (session.state is S.CHALLENGED)
            assert (session.seal is not None) == (session.state is S.PRESENCE)

    def _challenged(self, session: str) -> bool:
        it = self.bench.desk.session(session)
        return it is not None and bool(it.challenge)


AnyOrder.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestAnyOrder = AnyOrder.TestCase
