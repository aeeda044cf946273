"""The connection's state machine, with a clock that the test turns."""

import random
from typing import Any

import pytest

from agent import effects as fx
from agent.core import Core, Timing
from agent.effects import Phase
from agent.outbox import Entry
from agent.wire import messages, topics
from agent.wire.catalogue import RefusalReason
from agent.wire.messages import Rate, Refused, Welcome

DEVICE = "device-0001"
OUTBOX = "ab" * 16


def entry(seq: int, size: int = 10) -> Entry:
    return Entry(seq, "event", 1, b"x" * size)


class Bench:
    """A core and its clock; answers the outbox's questions from a list."""

    def __init__(self, *, servers: int = 1, seed: int = 1, **timing: Any) -> None:
        self.now = 1000.0
        self.core = Core(
            device=DEVICE,
            servers=servers,
            timing=Timing(**timing),
            jitter=random.Random(seed),
        )
        self.core.outbox = OUTBOX
        self.log: list[fx.Effect] = []

    def do(self, effects: list[fx.Effect]) -> list[fx.Effect]:
        self.log += effects
        return effects

    def down(self, message: messages.Message) -> list[fx.Effect]:
        topic = topics.down(DEVICE, message.TYPE, message.VERSION)
        return self.do(self.core.received(self.now, topic, messages.encode(message)))

    def welcome(self, high: int = 0, outbox: str = OUTBOX) -> list[fx.Effect]:
        return self.down(Welcome(at=1, outbox=outbox, high=high, head=None))

    def greeting(self) -> None:
        self.do(self.core.start(self.now))
        for event in (self.core.dialled, self.core.accepted, self.core.subscribed):
            self.do(event(self.now))

    def online(self, waiting: tuple[Entry, ...] = ()) -> list[fx.Effect]:
        self.greeting()
        self.welcome()
        return self.fetched(*waiting)

    def fetched(self, *entries: Entry, high: int = 0) -> list[fx.Effect]:
        asked = [e for e in self.log if isinstance(e, fx.Fetch)][-1]
        high = max(high, *(entry.seq for entry in entries), 0)
        return self.do(self.core.fetched(self.now, asked.connection, entries, high))

    def run(self, until: float, *, answer: bool = False) -> list[fx.Effect]:
        """Turn the clock to `until`, from deadline to deadline; `answer` pings and be heard."""
        seen: list[fx.Effect] = []
        while (due := self.core.next_deadline()) is not None and due <= until:
            self.now = max(self.now, due)
            for effect in self.do(self.core.tick(self.now)):
                seen.append(effect)
                if answer and isinstance(effect, fx.Ping):
                    self.core.heard(self.now)
                    self.core.pong(self.now)
        self.now = until
        return seen


def sent(effects: list[fx.Effect]) -> list[int]:
    return [e.entry.seq for e in effects if isinstance(e, fx.SendEntry)]


def kinds(effects: list[fx.Effect]) -> list[str]:
    return [type(e).__name__ for e in effects if not isinstance(e, fx.Changed)]


def test_a_connection_from_dial_to_online() -> None:
    bench = Bench()
    bench.online()
    assert kinds(bench.log) == ["Dial", "Subscribe", "Greet", "Rewind", "Fetch", "Deliver"]
    assert bench.core.phase is Phase.ONLINE
    assert fx.Subscribe(f"pat/1/{DEVICE}/dn/#") in bench.log


# --- the link ------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", [0.0, 3.0, 9.9, 10.0, 10.1, 37.0])
def test_a_black_hole_is_found_within_15_seconds(when: float) -> None:
    """R-CON-4: the link dies silently at `when`; no byte comes any more."""
    bench = Bench()
    bench.online()
    started = bench.now
    bench.run(started + when, answer=True)
    bench.core.heard(bench.now)  # the last thing that came
    died = bench.now
    effects = bench.run(died + 15)
    assert any(isinstance(e, fx.Hangup) for e in effects)
    assert bench.core.since <= died + 15


@pytest.mark.parametrize("seed", range(20))
def test_back_within_30_seconds_once_the_network_is(seed: int) -> None:
    """R-CON-4: the worst moment for the network to return is just after a dial began."""
    bench = Bench(seed=seed)
    bench.do(bench.core.start(bench.now))
    for _attempt in range(12):  # far into the back-off; every dial hangs until its deadline
        bench.run(bench.core.next_deadline() or 0)
        bench.run(bench.core.next_deadline() or 0)
    assert bench.core.phase is Phase.DIALLING
    returned = bench.now
    effects = bench.run(returned + 30)
    assert any(isinstance(e, fx.Dial) for e in effects)
    first = next(e for e in effects if isinstance(e, fx.Dial))
    assert first.server == 0


def test_the_back_off_has_full_jitter_and_a_cap() -> None:
    waits = []
    for seed in range(300):
        bench = Bench(seed=seed)
        bench.do(bench.core.start(bench.now))
        for _failure in range(10):
            bench.do(bench.core.lost(bench.now, "refused"))
            assert bench.core.phase is Phase.WAITING
            wait = (bench.core.next_deadline() or 0) - bench.now
            bench.run(bench.now + wait)
        waits.append(wait)
    assert max(waits) <= 20
    assert max(waits) > 18
    assert min(waits) < 2  # full jitter: from zero
    assert 8 < sum(waits) / len(waits) < 12


def test_the_next_access_server_is_reached_within_15_seconds_whatever_went_before() -> None:
    """R-CON-5: two servers fail in turns, over and over; neither is called more often for that."""
    waits = []
    for seed in range(300):
        bench = Bench(servers=2, seed=seed)
        bench.do(bench.core.start(bench.now))
        for _failure in range(12):
            bench.do(bench.core.lost(bench.now, "reset"))
            wait = (bench.core.next_deadline() or 0) - bench.now
            bench.run(bench.now + wait)
        waits.append(wait)
    assert 9 < max(waits) <= 10  # and five for the connection itself
    assert min(waits) < 1


def test_a_connection_that_lasted_resets_the_back_off() -> None:
    bench = Bench()
    bench.do(bench.core.start(bench.now))
    for _failure in range(8):
        bench.do(bench.core.lost(bench.now, "refused"))
        bench.run(bench.now + 20)
        if bench.core.phase is not Phase.DIALLING:
            bench.run(bench.core.next_deadline() or 0)
    for event in (bench.core.dialled, bench.core.accepted, bench.core.subscribed):
        bench.do(event(bench.now))
    bench.welcome()
    bench.run(bench.now + 11, answer=True)
    bench.do(bench.core.lost(bench.now, "reset"))
    assert (bench.core.next_deadline() or 0) - bench.now <= 1


def test_each_failure_moves_on_to_the_next_access_server() -> None:
    """R-CON-5: the next in the list is tried."""
    bench = Bench(servers=3)
    bench.do(bench.core.start(bench.now))
    for _failure in range(3):
        bench.do(bench.core.lost(bench.now, "refused"))
        bench.run(bench.core.next_deadline() or 0)
    assert [e.server for e in bench.log if isinstance(e, fx.Dial)] == [0, 1, 2, 0]


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_each_step_of_connecting_has_a_deadline(steps: int) -> None:
    bench = Bench()
    bench.do(bench.core.start(bench.now))
    for event in (bench.core.dialled, bench.core.accepted)[:steps]:
        bench.do(event(bench.now))
    due = bench.core.next_deadline()
    assert due is not None and due - bench.now <= 10
    effects = bench.run(due)
    assert any(isinstance(e, fx.Hangup) for e in effects)
    assert bench.core.phase is Phase.WAITING


def test_a_ping_every_ten_seconds_measures_the_round_trip() -> None:
    bench = Bench()
    bench.online()
    effects = bench.run(bench.now + 10)
    assert [e for e in effects if isinstance(e, fx.Ping)] == [fx.Ping()]
    bench.now += 0.25
    bench.core.heard(bench.now)
    bench.core.pong(bench.now)
    assert bench.core.rtt_ms == pytest.approx(250)
    effects = bench.run(bench.now + 60, answer=True)
    assert 5 <= len([e for e in effects if isinstance(e, fx.Ping)]) <= 6


def test_an_answer_that_never_comes_ends_the_link_though_others_do() -> None:
    bench = Bench()
    bench.online()
    bench.run(bench.now + 10)
    for _second in range(16):
        bench.now += 1
        bench.core.heard(bench.now)
        bench.do(bench.core.tick(bench.now))
    assert bench.core.phase is not Phase.ONLINE
    assert bench.core.reason == "silent link"


def test_a_late_puback_only_pauses() -> None:
    """The database behind the portal is away for ten minutes: no reconnect, nothing lost."""
    bench = Bench(window=4)
    effects = bench.online(tuple(entry(seq) for seq in range(1, 8)))
    assert sent(effects) == [1, 2, 3, 4]
    effects = bench.run(bench.now + 600, answer=True)
    assert bench.core.phase is Phase.ONLINE
    assert not sent(effects)
    assert sent(bench.do(bench.core.acknowledged(bench.now, 1))) == [5]


def test_a_server_that_forgot_us_is_left_in_the_end() -> None:
    bench = Bench(window=4)
    bench.online((entry(1),))
    bench.run(bench.now + 901, answer=True)
    assert bench.core.phase is not Phase.ONLINE


def test_heartbeats_every_ten_seconds_and_at_each_change_of_state() -> None:
    bench = Bench()
    bench.online()
    effects = bench.run(bench.now + 60, answer=True)
    assert len([e for e in effects if isinstance(e, fx.SendHeartbeat)]) == 7
    assert kinds(bench.do(bench.core.state_changed(bench.now))) == ["SendHeartbeat"]
    bench.do(bench.core.lost(bench.now, "reset"))
    assert not bench.core.state_changed(bench.now)


def test_nothing_that_comes_late_disturbs_another_phase() -> None:
    bench = Bench()
    for event in (bench.core.dialled, bench.core.accepted, bench.core.subscribed):
        assert not event(bench.now)
    assert not bench.core.lost(bench.now, "late")
    assert not bench.core.greeted(bench.now)
    assert not bench.core.acknowledged(bench.now, 1)
    assert not bench.core.fetched(bench.now, 0, [entry(1)], 1)
    assert bench.core.phase is Phase.IDLE


def test_stop_hangs_up_and_starts_no_more() -> None:
    bench = Bench()
    bench.online()
    assert "Hangup" in kinds(bench.do(bench.core.stop(bench.now)))
    assert bench.core.next_deadline() is None


def test_every_transition_taken_is_in_the_table() -> None:
    """Random events in random order never leave the table; the core itself asserts it."""
    events = ("dialled", "accepted", "subscribed", "greeted", "tick", "state_changed")
    for seed in range(200):
        dice = random.Random(seed)
        bench = Bench(seed=seed)
        bench.do(bench.core.start(bench.now))
        for _step in range(60):
            bench.now += dice.uniform(0, 6)
            match dice.randrange(10):
                case 0:
                    bench.do(bench.core.lost(bench.now, "x"))
                case 1:
                    bench.welcome(dice.randrange(5), dice.choice([OUTBOX, "00" * 16]))
                case 2:
                    bench.do(bench.core.committed(bench.now, entry(dice.randrange(1, 9))))
                case 3:
                    bench.core.pong(bench.now)
                    bench.core.heard(bench.now)
                case _:
                    bench.do(getattr(bench.core, dice.choice(events))(bench.now))


# --- the outbox ----------------------------------------------------------------------------------


def test_nothing_flows_before_the_portals_mark() -> None:
    bench = Bench()
    bench.greeting()
    assert not sent(bench.do(bench.core.committed(bench.now, entry(1))))
    effects = bench.welcome(high=7)
    assert [e for e in effects if isinstance(e, fx.Rewind)] == [fx.Rewind(7)]
    # The mark is applied before anything is read.
    names = kinds(effects)
    assert names.index("Rewind") < names.index("Fetch")


def test_without_a_mark_the_outbox_flows_once_hello_was_decided() -> None:
    bench = Bench()
    bench.greeting()
    bench.run(bench.now + 60, answer=True)
    assert bench.core.phase is Phase.GREETING  # not decided: the portal's database may be away
    bench.do(bench.core.greeted(bench.now))
    bench.run(bench.now + 5, answer=True)
    assert bench.core.phase is Phase.ONLINE


def test_a_mark_for_another_outbox_is_not_applied() -> None:
    bench = Bench()
    bench.greeting()
    effects = bench.welcome(high=7, outbox="00" * 16)
    assert "Rewind" not in kinds(effects)
    assert bench.core.phase is Phase.ONLINE


def test_entries_go_out_in_order_through_the_window_and_memory_is_bounded() -> None:
    bench = Bench(window=8, ahead=16)
    disk = {seq: entry(seq) for seq in range(1, 201)}
    out: list[int] = []
    bench.greeting()
    effects = bench.welcome()
    while True:
        out += sent(effects)
        fetch = next((e for e in effects if isinstance(e, fx.Fetch)), None)
        if fetch is not None:
            rows = [disk[s] for s in sorted(disk) if s > fetch.after][: fetch.limit]
            effects = bench.do(bench.core.fetched(bench.now, fetch.connection, rows, 200))
            continue
        flying = [s for s in out if s in disk]
        assert len(flying) <= 8
        if not flying:
            break
        del disk[flying[0]]
        effects = bench.do(bench.core.acknowledged(bench.now, flying[0]))
    assert out == list(range(1, 201))


def test_the_window_is_bounded_in_bytes_and_takes_one_large_message() -> None:
    bench = Bench(window_bytes=1000)
    effects = bench.online((entry(1, 5000), entry(2, 400), entry(3, 400), entry(4, 400)))
    assert sent(effects) == [1]
    assert sent(bench.do(bench.core.acknowledged(bench.now, 1))) == [2, 3]


def test_a_fresh_entry_goes_out_without_asking_the_disk() -> None:
    bench = Bench()
    bench.online((entry(1),))
    before = len([e for e in bench.log if isinstance(e, fx.Fetch)])
    assert sent(bench.do(bench.core.committed(bench.now, entry(2)))) == [2]
    assert len([e for e in bench.log if isinstance(e, fx.Fetch)]) == before


def test_an_entry_committed_while_the_disk_is_asked_is_neither_lost_nor_sent_twice() -> None:
    bench = Bench()
    bench.greeting()
    bench.welcome()
    bench.do(bench.core.committed(bench.now, entry(1)))  # committed after the read
    effects = bench.fetched()
    assert not sent(effects)
    assert [e.after for e in effects if isinstance(e, fx.Fetch)] == [0]
    assert sent(bench.fetched(entry(1))) == [1]
    bench2 = Bench()
    bench2.greeting()
    bench2.welcome()
    bench2.do(bench2.core.committed(bench2.now, entry(2)))
    effects = bench2.fetched(entry(1))
    fetch = next(e for e in effects if isinstance(e, fx.Fetch))
    assert fetch.after == 1
    assert sent(bench2.fetched(entry(2))) == [2]


def test_a_full_read_that_was_the_last_leaves_out_nothing_that_comes_after() -> None:
    """As many entries as were asked for, and no more on disk; then the next is written."""
    bench = Bench(ahead=4)
    bench.online(tuple(entry(seq) for seq in range(1, 5)))
    for seq in range(1, 5):
        bench.do(bench.core.acknowledged(bench.now, seq))
    if [e for e in bench.log if isinstance(e, fx.Fetch)][1:]:
        bench.fetched()
    assert sent(bench.do(bench.core.committed(bench.now, entry(5)))) == [5]


def test_an_outbox_that_cannot_be_read_begins_again_after_a_pause() -> None:
    bench = Bench()
    bench.greeting()
    asked = [e for e in bench.welcome() if isinstance(e, fx.Fetch)][-1]
    bench.do(bench.core.committed(bench.now, entry(9)))
    assert kinds(bench.do(bench.core.unfetched(bench.now, asked.connection))) == ["Hangup"]
    assert bench.core.phase is Phase.WAITING
    assert not bench.core.unfetched(bench.now, asked.connection)


class Disk:
    """An outbox whose reads are answered some time after they looked."""

    def __init__(self) -> None:
        self.waiting: set[int] = set()
        self.high = 0
        self.reads: list[tuple[int, list[Entry], int]] = []

    def write(self) -> Entry:
        self.high += 1
        self.waiting.add(self.high)
        return entry(self.high)

    def read(self, fetch: fx.Fetch) -> None:
        rows = sorted(seq for seq in self.waiting if seq > fetch.after)[: fetch.limit]
        self.reads.append((fetch.connection, [entry(seq) for seq in rows], self.high))


@pytest.mark.parametrize("seed", range(300))
def test_every_entry_is_sent_once_in_order_whatever_comes_between(seed: int) -> None:
    """R-CON-5. Writes, reads that answer late, acknowledgements and broken links in any order: on
    each connection what waits goes out in order and without a gap."""
    dice = random.Random(seed)
    bench = Bench(seed=seed, ahead=dice.choice([1, 2, 4, 8]), window=dice.choice([1, 2, 5]))
    disk = Disk()
    committed: list[Entry] = []  # on disk; the core is told in this order
    out: list[int] = []  # of this connection
    bench.greeting()

    def flying() -> list[int]:
        return [seq for seq in out if seq in disk.waiting]

    def act(effects: list[fx.Effect]) -> None:
        for effect in bench.do(effects):
            if isinstance(effect, fx.Fetch):
                disk.read(effect)
            elif isinstance(effect, fx.SendEntry):
                out.append(effect.entry.seq)

    act(bench.welcome())
    for step in range(400):
        match dice.randrange(12) if step < 340 else 4 + step % 8:
            case 0 | 1 | 2 | 3:
                committed += [disk.write() for _each in range(dice.randrange(1, 4))]
            case 4 | 5 | 6:
                # The store tells in the order of its work; a read before or after a write.
                if committed and (dice.random() < 0.5 or not disk.reads):
                    act(bench.core.committed(bench.now, committed.pop(0)))
                elif disk.reads:
                    act(bench.core.fetched(bench.now, *disk.reads.pop(0)))
            case 7 if dice.random() < 0.2 and step < 340:
                bench.do(bench.core.lost(bench.now, "reset"))
                bench.now = bench.core.next_deadline() or 0
                bench.do(bench.core.tick(bench.now))
                for event in (bench.core.dialled, bench.core.accepted, bench.core.subscribed):
                    bench.do(event(bench.now))
                out.clear()
                act(bench.welcome())
            case _:
                for seq in flying()[:1]:
                    disk.waiting.discard(seq)
                    act(bench.core.acknowledged(bench.now, seq))
        assert out == sorted(set(out))
        assert not [seq for seq in disk.waiting if out and seq < out[-1] and seq not in out]
    while committed or disk.reads or flying():
        if committed:
            act(bench.core.committed(bench.now, committed.pop(0)))
        if disk.reads:
            act(bench.core.fetched(bench.now, *disk.reads.pop(0)))
        for seq in flying():
            disk.waiting.discard(seq)
            act(bench.core.acknowledged(bench.now, seq))
    assert not disk.waiting


def test_what_a_former_connection_asked_for_is_not_used() -> None:
    bench = Bench()
    bench.greeting()
    bench.welcome()
    old = [e for e in bench.log if isinstance(e, fx.Fetch)][-1]
    bench.do(bench.core.lost(bench.now, "reset"))
    bench.run(bench.core.next_deadline() or 0)
    for event in (bench.core.dialled, bench.core.accepted, bench.core.subscribed):
        bench.do(event(bench.now))
    bench.welcome()
    assert not bench.core.fetched(bench.now, old.connection, [entry(5)], 5)
    assert sent(bench.fetched(entry(3), entry(5))) == [3, 5]


def test_a_new_name_of_the_outbox_makes_a_new_greeting() -> None:
    bench = Bench()
    bench.online((entry(50),))
    bench.do(bench.core.renamed(bench.now))
    bench.run(bench.core.next_deadline() or 0)
    for event in (bench.core.dialled, bench.core.accepted, bench.core.subscribed):
        bench.do(event(bench.now))
    bench.welcome()
    assert sent(bench.fetched(entry(1), entry(2))) == [1, 2]
    assert sent(bench.do(bench.core.committed(bench.now, entry(3)))) == [3]


# --- what comes down -----------------------------------------------------------------------------


def test_a_readable_message_is_delivered_with_its_exact_bytes() -> None:
    bench = Bench()
    bench.online()
    payload = b' {"outbox":"%s","seq":3,"reason":"malformed"}' % OUTBOX.encode()
    effects = bench.core.received(bench.now, topics.down(DEVICE, "refused", 1), payload)
    assert effects == [
        fx.Deliver(Refused(outbox=OUTBOX, seq=3, reason=RefusalReason.MALFORMED), payload)
    ]


@pytest.mark.parametrize(
    ("topic", "payload", "reason"),
    [
        (topics.down(DEVICE, "refused", 1), b"{", "malformed"),
        (topics.down(DEVICE, "refused", 1), b"\xff\xfe", "malformed"),
        (topics.down(DEVICE, "refused", 9), b"{}", "unknown_version"),
        (topics.down(DEVICE, "novelty", 1), b"{}", "unknown_type"),
        (topics.down("device-0002", "refused", 1), b"{}", "topic"),
        (topics.up(DEVICE, "refused", 1), b"{}", "topic"),
        ("pat/1/nonsense", b"{}", "topic"),
        (topics.down(DEVICE, "refused", 1), b"x" * (messages.MAX_PAYLOAD + 1), "too_large"),
    ],
)
def test_poison_is_reported_by_digest_and_stops_nothing(
    topic: str, payload: bytes, reason: str
) -> None:
    bench = Bench()
    bench.online()
    (effect,) = bench.core.received(bench.now, topic, payload)
    assert isinstance(effect, fx.Unreadable)
    assert effect.reason == reason
    assert effect.length == len(payload)
    assert bench.core.phase is Phase.ONLINE
    assert bench.welcome()  # the next message is read


def test_what_the_lane_did_not_take_for_a_frame_is_none() -> None:
    bench = Bench()
    bench.online()
    [effect] = bench.core.received(bench.now, topics.down_stream(DEVICE), bytes(100_000))
    assert isinstance(effect, fx.Unreadable)
    assert (effect.type, effect.reason) == ("s", "frame")


def test_the_live_rate_is_a_lease() -> None:
    """R-MNT-5: samples at the rate asked for, until the lease ends; a page that closed is free."""
    bench = Bench()
    bench.online()
    bench.run(bench.now + 1, answer=True)
    bench.down(Rate(hz=5, for_s=10))
    effects = bench.run(bench.now + 30, answer=True)
    assert 49 <= len([e for e in effects if isinstance(e, fx.SendLive)]) <= 51
    bench.down(Rate(hz=2, for_s=5))
    bench.run(bench.now + 3, answer=True)
    bench.down(Rate(hz=2, for_s=5))  # renewed: no gap, no double
    effects = bench.run(bench.now + 30, answer=True)
    assert 9 <= len([e for e in effects if isinstance(e, fx.SendLive)]) <= 11


def test_a_loop_that_was_late_sends_one_sample_not_many() -> None:
    bench = Bench()
    bench.online()
    bench.down(Rate(hz=5, for_s=60))
    bench.now += 5
    bench.core.heard(bench.now)
    effects = bench.do(bench.core.tick(bench.now)) + bench.do(bench.core.tick(bench.now))
    assert len([e for e in effects if isinstance(e, fx.SendLive)]) == 1


def test_the_lease_ends_with_the_connection() -> None:
    bench = Bench()
    bench.online()
    bench.down(Rate(hz=5, for_s=120))
    bench.do(bench.core.lost(bench.now, "reset"))
    bench.run(bench.core.next_deadline() or 0)
    for event in (bench.core.dialled, bench.core.accepted, bench.core.subscribed):
        bench.do(event(bench.now))
    assert not [e for e in bench.run(bench.now + 5) if isinstance(e, fx.SendLive)]
