"""What must not lose anything, and find its way back."""

from tests.mutation.base import Mutation

TABLE = (
    Mutation(
        "PUBACK after the commit",
        "broker/lanes.py",
        "topic.version, payload, 1, ack)\n",
        "topic.version, payload, 1, ack)\n        ack()\n",
        ("tests/broker/test_gate.py::test_a_message_goes_up_and_its_puback_comes_only_after_ack",),
    ),
    Mutation(
        "a message that comes again counts once",
        "fleet/mqtt/ingest.py",
        'if past.digest in ("", entry.digest):',
        "if False:",
        ("tests/fleet/mqtt/test_ingest.py::test_the_same_message_counts_once",),
    ),
    Mutation(
        "a black hole is found",
        "agent/core.py",
        "silence: float = 14.5",
        "silence: float = 40.0",
        ("tests/agent/test_core.py::test_a_black_hole_is_found_within_15_seconds",),
    ),
    Mutation(
        "a number is used once",
        "agent/outbox.py",
        '        set_meta(connection, "outbox_high", entry.seq)\n        self._next += 1',
        "        self._next += 1",
        (
            "tests/agent/test_outbox.py"
            "::test_numbers_go_on_after_a_restart_and_after_everything_was_forgotten",
        ),
    ),
    Mutation(
        "a database in trouble is no reason to decide",
        "fleet/mqtt/ingest.py",
        "if not is_trouble(error):\n                    self._singly",
        "if True:\n                    self._singly",
        ("tests/fleet/mqtt/test_ingest.py::test_a_locked_database_delays_and_loses_nothing",),
    ),
    Mutation(
        "a late PUBACK makes no reconnect",
        "agent/core.py",
        "stuck: float = 900.0",
        "stuck: float = 20.0",
        ("tests/agent/test_core.py::test_a_late_puback_only_pauses",),
    ),
    Mutation(
        "what cannot be read is decided on too",
        "fleet/mqtt/ingest.py",
        "            self._refuse(book, device, entry, error.reason)\n",
        "            return False\n",
        (
            "tests/fleet/mqtt/test_ingest.py"
            "::test_poison_is_decided_and_the_outbox_behind_it_flows",
        ),
    ),
    Mutation(
        "the outbox keeps its order",
        "agent/outbox.py",
        "ORDER BY seq LIMIT ?",
        "ORDER BY seq DESC LIMIT ?",
        (
            "tests/agent/test_runtime.py"
            "::test_events_survive_a_portal_that_is_away_and_arrive_once_in_order",
        ),
    ),
    Mutation(
        "bulk stays within what the line soon takes",
        "agent/wire/pacer.py",
        "if self.on_the_way < self.allowed:",
        "if True:",
        ("tests/agent/test_slow_link.py::test_a_heartbeat_is_never_two_seconds_late_at_64_kbit",),
    ),
    Mutation(
        "a backlog waits for room like bulk",
        "agent/outflow.py",
        "        if cap is Turn.CONTROL:\n            return False",
        "        return True",
        (
            "tests/agent/test_outflow.py::test_a_backlog_leaves_in_order_and_its_queue_stays_short",
            "tests/agent/test_slow_link.py::test_a_backlog_keeps_no_heartbeat_waiting_at_64_kbit",
        ),
    ),
    Mutation(
        "a fleet does not come back in step",
        "agent/core.py",
        "deadline=self._jitter.uniform(0, ceiling))",
        "deadline=ceiling)",
        ("tests/agent/test_core.py::test_the_back_off_has_full_jitter_and_a_cap",),
    ),
    Mutation(
        "on a full disk the audit chain comes last",
        "agent/outbox.py",
        "if self.pressure > _PATIENCE.get(kind, _PATIENCE_OF_OTHERS):",
        "if self.pressure > 0:",
        (
            "tests/agent/test_outbox.py"
            "::test_on_a_full_disk_telemetry_gives_way_first_and_audit_last",
        ),
    ),
    Mutation(
        "a job that is known is not begun",
        "agent/jobs/runner.py",
        "            if known is not None:\n                self._again(known, digest)",
        "            if False:\n                self._again(known, digest)",
        ("tests/agent/jobs/test_runner.py::test_a_job_delivered_a_thousand_times_runs_once",),
    ),
    Mutation(
        "the watchdog is fed only while everything moves",
        "agent/supervisor.py",
        "if not (still := self._still()):",
        "if (still := self._still()) is not None:",
        (
            "tests/agent/test_watchdog.py"
            "::test_a_supervisor_feeds_the_watchdog_only_while_its_agents_move",
        ),
    ),
    Mutation(
        "a process that leaks ends itself",
        "agent/watchdog.py",
        "if held > bound:",
        "if False:",
        ("tests/agent/test_watchdog.py::test_a_process_that_leaks_ends_itself",),
    ),
    Mutation(
        "no server but the anchored one is believed",
        "agent/identity.py",
        "ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks host names",
        "ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)\n    context.check_hostname = False\n"
        "    context.verify_mode = ssl.CERT_NONE  # checks host names",
        (
            "tests/agent/network/test_journey.py"
            "::test_tls_inspection_is_named_with_its_issuer_and_never_accepted",
        ),
    ),
    Mutation(
        "a name that is unknown is told from a name server that is silent",
        "agent/network/journey.py",
        "failure = Failure.UNKNOWN if known else Failure.UNANSWERED",
        "failure = Failure.UNANSWERED",
        ("tests/agent/network/test_journey.py::test_a_name_that_cannot_be_found",),
    ),
    Mutation(
        "a restored portal is given again what it forgot",
        "agent/outbox.py",
        '"UPDATE outbox SET acknowledged_at = NULL WHERE seq > ?"',
        '"UPDATE outbox SET acknowledged_at = NULL WHERE seq > ? AND 0"',
        ("tests/agent/test_outbox.py::test_a_restored_portal_gets_the_rest_again",),
    ),
    Mutation(
        "a record of the portal that became shorter is a fork",
        "agent/audit.py",
        "if newest is not None and newest > head.index:",
        "if False:",
        ("tests/agent/test_audit.py::test_the_servers_heads_are_kept_and_two_histories_are_found",),
    ),
    Mutation(
        "the next access server is not long in coming",
        "agent/core.py",
        "most = self._t.back_off_cap / self._servers",
        "most = self._t.back_off_cap",
        (
            "tests/agent/test_core.py"
            "::test_the_next_access_server_is_reached_within_15_seconds_whatever_went_before",
        ),
    ),
    Mutation(
        "a failure leads on to the next access server",
        "agent/core.py",
        "self.server = (self.server + 1) % self._servers",
        "self.server = self.server % self._servers",
        ("tests/agent/test_core.py::test_each_failure_moves_on_to_the_next_access_server",),
    ),
    Mutation(
        "the far path is measured from end to end",
        "agent/wire/pacer.py",
        "best * (self.round_trip + self._reach(took))",
        "best * self._reach(took)",
        ("tests/agent/wire/test_pacer.py::test_the_path_is_filled_and_its_queue_stays_short",),
    ),
)  # fmt: skip
