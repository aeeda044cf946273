"""Take the defences away, one at a time, and see a test fail: `make mutation`.

    python -m tests.mutation [WORD…]      # all, or those whose name holds one of the words

A test of an attack proves something only if it fails without the defence. Each line of the table
removes one in a copy of the project and runs the tests named for it, of which one must fail; in the
copy as it is, all must pass. Exits with 1 when a defence could be taken away unnoticed.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUN_S = 180  # for the tests of one mutation

IDENTITY = "tests/broker/test_attacks_identity.py"
TRAFFIC = "tests/broker/test_attacks_traffic.py"
LINK = "tests/broker/link/test_link.py"


@dataclass(frozen=True)
class Mutation:
    """`old` becomes `new`, as often as it occurs in `file`; then one of `tests` must fail."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


TABLE = (
    # --- the gate and the broker
    Mutation(
        "a certificate is required",
        "broker/tls.py",
        "ssl.CERT_REQUIRED",
        "ssl.CERT_OPTIONAL",
        (f"{IDENTITY}::test_without_a_certificate",),
    ),
    Mutation(
        "on a websocket as well",
        "broker/arrivals.py",
        "tls.device_context(house.options, alpn)",
        "tls.web_context(house.options)",
        ("tests/broker/test_websocket.py::test_without_a_certificate_nothing_of_http_is_read",),
    ),
    Mutation(
        "the certificate names one device",
        "broker/acl.py",
        'if alternatives != (("URI", SPIFFE + device),):',
        "if False:",
        (f"{IDENTITY}::test_a_certificate_that_names_no_one_device",),
    ),
    Mutation(
        "the deny-list is asked at the door",
        "broker/gate.py",
        "self._house.denied.denies(identity)",
        "False",
        (f"{IDENTITY}::test_a_device_revoked_while_it_is_live",),
    ),
    Mutation(
        "the deny-list cuts who is in",
        "broker/server.py",
        "if not seat.over and denied.denies(seat.identity):",
        "if False:",
        (f"{IDENTITY}::test_a_device_revoked_while_it_is_live",),
    ),
    # --- the link to an access server
    Mutation(
        "a link is for the portal's certificate alone",
        "broker/link/uplink.py",
        "if not wire.names(line.certificate, wire.PORTAL_URI):",
        "if False:",
        (f"{LINK}::test_a_stranger_at_the_links_door_gets_nothing",),
    ),
    Mutation(
        "a link asks for a certificate",
        "broker/link/uplink.py",
        "ssl.CERT_REQUIRED",
        "ssl.CERT_NONE",
        (f"{LINK}::test_a_stranger_at_the_links_door_gets_nothing",),
    ),
    Mutation(
        "the access server at the other end is the one meant",
        "broker/link/remote.py",
        "if not wire.names(line.certificate, wire.SERVER_URI + self.options.name):",
        "if False:",
        (f"{LINK}::test_a_server_that_is_not_the_one_is_named",),
    ),
    Mutation(
        "over a link, PUBACK follows the portal's decision",
        "broker/link/remote.py",
        "if self._waiting or self._handler.up(delivery) is False:",
        "delivery.ack()\n        if self._waiting or self._handler.up(delivery) is False:",
        ("tests/broker/test_transport.py::test_acknowledged_when_it_is_committed_and_not_before",),
    ),
    Mutation(
        "what was not decided goes over the next link again",
        "broker/link/uplink.py",
        "in self._window.send():",
        "in ():",
        (f"{LINK}::test_a_link_that_drops_in_the_middle_of_a_batch",),
    ),
    Mutation(
        "frames to one device have a window over a link",
        "broker/link/remote.py",
        "self._frames.get(device, 0) >= self._limits.frame_bytes",
        "False",
        (f"{LINK}::test_frames_to_a_device_that_does_not_read_stay_within_their_window",),
    ),
    Mutation(
        "the deny-list survives an access server's restart",
        "broker/link/uplink.py",
        "gate.deny(self._denied)",
        "pass",
        (f"{LINK}::test_the_deny_list_reaches_the_gate_and_survives_its_restart",),
    ),
    # --- a live connection
    Mutation(
        "a certificate expires on a live connection",
        "broker/gate.py",
        "if left_s <= 0:",
        "if False:",
        (f"{IDENTITY}::test_a_certificate_that_expires_while_connected",),
    ),
    Mutation(
        "the client id is the certificate's",
        "broker/gate.py",
        "if connect.client_id != device:",
        "if False:",
        (f"{IDENTITY}::test_another_devices_client_id_while_it_is_online",),
    ),
    Mutation(
        "no will",
        "broker/packets.py",
        "if flags & 0x3C:",
        "if False:",
        (f"{IDENTITY}::test_a_will",),
    ),
    Mutation(
        "no retained message",
        "broker/packets.py",
        "            PUBLISH: publish,\n",
        "            PUBLISH: publish,\n            PUBLISH | _RETAIN: publish,\n",
        (f"{TRAFFIC}::test_a_retained_message",),
    ),
    Mutation(
        "no QoS 2",
        "broker/packets.py",
        "            PUBLISH: publish,\n",
        "            PUBLISH: publish,\n            0x34: publish,\n",
        (f"{TRAFFIC}::test_a_flood_at_qos_2",),
    ),
    Mutation(
        "one CONNECT",
        "broker/packets.py",
        "            PUBLISH: publish,\n",
        "            PUBLISH: publish,\n            CONNECT: 1024,\n",
        (f"{IDENTITY}::test_a_second_connect",),
    ),
    Mutation(
        "CONNECT within its time",
        "broker/gate.py",
        "if self._state is State.NEW:\n            self.end(Reason.CONNECT_LATE)",
        "if False:\n            self.end(Reason.CONNECT_LATE)",
        (f"{IDENTITY}::test_no_connect_or_a_slow_one",),
    ),
    Mutation(
        "a ClientHello within its time",
        "broker/arrivals.py",
        "asyncio.timeout(self._limits.hello_s)",
        "asyncio.timeout(None)",
        ("tests/broker/test_arrivals.py::test_half_open_sockets_beside_live_devices",),
    ),
    Mutation(
        "a subscription within the grant, at the gate",
        "broker/dialogue.py",
        "if acl.may_subscribe(device, text)]",
        "]",
        (f"{TRAFFIC}::test_a_subscription_outside_the_grant",),
    ),
    Mutation(
        "a subscription within the grant, in amqtt's plugin",
        "broker/plugin.py",
        "return acl.may_subscribe(session.client_id, topic)",
        "return True",
        ("tests/broker/test_session.py::test_the_plugin_refuses_on_its_own",),
    ),
    Mutation(
        "no start without the plugin",
        "broker/session.py",
        "if len(loaded) != 1 or type(loaded[0]) is not plugin.GatePlugin:",
        "if False:",
        ("tests/broker/test_session.py::test_the_broker_refuses_to_start_without_our_plugin_alone",),
    ),
    Mutation(
        "a publish under one's own up/",
        "broker/acl.py",
        "return topics.parse(text) if topics.may_publish(device, text) else None",
        "return topics.parse(text)",
        (f"{TRAFFIC}::test_a_publish_outside_ones_own_up",),
    ),
    Mutation(
        "a packet within its size",
        "broker/packets.py",
        "if length > self.limits[first]:",
        "if self.limits[first] < 0:",
        (
            f"{TRAFFIC}::test_a_publish_of_256_megabytes",
            "tests/broker/test_cost.py::test_memory_under_attack",
        ),
    ),
    Mutation(
        "silence ends a connection",
        "broker/gate.py",
        "now - self._heard >= self._idle_s",
        "False",
        (f"{TRAFFIC}::test_silence_beyond_the_keepalive",),
    ),
    Mutation(
        "a reader that stops is cut",
        "broker/lanes.py",
        "return self.congested and self.buffered > self._limits.outgoing_bytes",
        "return False",
        ("tests/broker/test_neighbours.py::test_a_reader_that_stops",),
    ),
    Mutation(
        "a device has a rate",
        "broker/lanes.py",
        "self._tokens -= messages",
        "return 0.0",
        ("tests/broker/test_neighbours.py::test_ten_times_the_rate_from_one_device",),
    ),
    Mutation(
        "a takeover closes the old socket",
        "broker/gate.py",
        "self.end(Reason.TAKEN_OVER)\n        if self._socket_open:",
        "if False:",
        (
            "tests/broker/test_gate.py"
            "::test_takeover_closes_the_old_socket_before_the_new_one_is_announced",
        ),
    ),
    Mutation(
        "a disconnection costs the same beside thousands",
        "broker/session.py",
        "for a_filter in self._filters.pop(client_id, set()):",
        "for a_filter in [each for each in self._subscriptions if client_id in each]:",
        ("tests/broker/test_cost.py::test_a_connect_costs_no_more_beside_thousands_than_beside_five",),
    ),
    Mutation(
        "what TLS holds goes at once",
        "broker/gate.py",
        "        del self._transport\n",
        "",
        ("tests/broker/test_cost.py::test_what_tls_held_goes_without_the_collector",),
    ),
    Mutation(
        "a stranger cannot name another peer",
        "broker/arrivals.py",
        "if self._from_proxy(arrival.address[0]):",
        "if True:",
        ("tests/broker/test_proxy.py::test_a_stranger_cannot_choose_its_address",),
    ),
    # --- identity and enrolment
    Mutation(
        "a used claim is worth nothing to another machine",
        "fleet/enrolment/services.py",
        "        or not hmac.compare_digest(bytes(device.audit_key), audit_key)\n    ):",
        "    ):",
        ("tests/fleet/enrolment/test_enrol.py::test_another_audit_key_is_another_device",),
    ),
    Mutation(
        "a revoked credential is not given again",
        "fleet/enrolment/services.py",
        "if held.revoked_at is not None or now - held.not_after_at > RETURN_WITHIN:",
        "if False:",
        ("tests/fleet/enrolment/test_enrol.py::test_a_revoked_credential_is_not_given_again",),
    ),
    Mutation(
        "a renewed certificate is refused once the new one was used",
        "fleet/enrolment/credentials.py",
        "older.update(superseded_at=now)",
        "pass",
        (
            "tests/fleet/enrolment/test_credentials.py"
            "::test_the_old_one_serves_until_the_new_one_was_used",
        ),
    ),
    Mutation(
        "a renewal is certified under the device's own name",
        "agent/renewal.py",
        "if device != known.device:",
        "if False:",
        ("tests/agent/test_renewal.py::test_what_is_not_for_us_is_not_taken",),
    ),
    Mutation(
        "a renewal's key is the device's own",
        "fleet/enrolment/inbound.py",
        "elif held.device_id != device.pk:",
        "elif False:",
        ("tests/fleet/enrolment/test_credentials.py::test_another_devices_key_is_refused",),
    ),
    Mutation(
        "a swap that a crash cut short is finished",
        "agent/identity.py",
        "        keys.promote()",
        "        pass",
        (
            "tests/agent/test_renewal.py"
            "::test_a_crash_at_every_step_leaves_the_old_pair_or_the_new_one",
        ),
    ),
    Mutation(
        "two machines with one credential are noticed",
        "fleet/enrolment/clones.py",
        "            if boot in boots:",
        "            if False:",
        ("tests/fleet/enrolment/test_clones.py::test_a_boot_that_comes_back_is_another_machine",),
    ),
    Mutation(
        "connections that throw each other out are noticed",
        "fleet/enrolment/clones.py",
        "if len(recent) >= MANY or _take_turns(recent[-4:]):",
        "if False:",
        ("tests/fleet/enrolment/test_clones.py::test_many_takeovers_from_one_address",),
    ),
    Mutation(
        "an intermediate comes from the root that devices trust",
        "fleet/enrolment/ceremony.py",
        "certificate.verify_directly_issued_by(root)",
        "pass",
        ("tests/fleet/enrolment/test_ceremony.py::test_what_must_not_issue_for_devices",),
    ),
    Mutation(
        "a transfer hides the former owner's measurements",
        "fleet/inventory/pages.py",
        "rows = restrict(Sample.objects.filter(device=device), user, Action.DEVICE_VIEW)",
        "rows = Sample.objects.filter(device=device)",
        (
            "tests/fleet/inventory/test_departures.py"
            "::test_the_former_owner_keeps_what_was_theirs_and_sees_nothing_new",
        ),
    ),
    Mutation(
        "a private key is closed to others",
        "agent/posix.py",
        "    if info.st_mode & 0o077:\n        raise StateError(",
        "    if False:\n        raise StateError(",
        ("tests/agent/test_renewal.py::test_a_key_that_others_may_read_is_refused",),
    ),
    # --- faults
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
        "silence: float = 15.0",
        "silence: float = 40.0",
        ("tests/agent/test_core.py::test_a_black_hole_is_found_within_15_seconds",),
    ),
)  # fmt: skip


def copy(folder: Path) -> None:
    """The files that git knows, as they are now."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)


def passes(folder: Path, tests: Sequence[str]) -> bool | None:
    """Whether the tests pass there; None when they could not be run."""
    # The working directory comes before the installed project on the path. No byte code: a file
    # that changes twice in a second would be taken from its cache.
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(folder)}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:randomly", *tests]
    try:
        result = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, timeout=RUN_S
        )
    except subprocess.TimeoutExpired:
        return False
    return {0: True, 1: False}.get(result.returncode)


def caught(mutation: Mutation, folder: Path) -> bool | None:
    """Whether a test notices that the defence is missing. Leaves the copy as it was."""
    path = folder / mutation.file
    text = path.read_text()
    if mutation.old not in text:
        return None
    path.write_text(text.replace(mutation.old, mutation.new))
    try:
        passed = passes(folder, mutation.tests)
    finally:
        path.write_text(text)
    return None if passed is None else not passed


def main(words: Sequence[str]) -> int:
    chosen = [each for each in TABLE if not words or any(word in each.name for word in words)]
    with tempfile.TemporaryDirectory(prefix="patency-mutation-") as name:
        folder = Path(name)
        copy(folder)
        tests = sorted({test for mutation in chosen for test in mutation.tests})
        print(f"{len(tests)} tests of {len(chosen)} defences, with nothing removed …", flush=True)
        if not passes(folder, tests):
            print("some fail as it is: mend them first")
            return 1
        unnoticed = 0
        for mutation in chosen:
            began = time.monotonic()
            found = caught(mutation, folder)
            unnoticed += not found
            verdict = {True: "caught", False: "UNNOTICED", None: "CANNOT BE TRIED"}[found]
            print(f"{verdict:15} {mutation.name} ({time.monotonic() - began:.1f} s)", flush=True)
    print(f"{len(chosen) - unnoticed} of {len(chosen)} caught")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
