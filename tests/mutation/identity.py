"""Who a device is, from its claim to the end of its credential."""

from tests.mutation.base import Mutation

TABLE = (
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
        "what a transfer left in an outbox stays the former owner's",
        "fleet/inventory/placing.py",
        "if device.transferred_at is None:",
        "if True:",
        (
            "tests/fleet/inventory/test_placing.py"
            "::test_each_owner_sees_its_own_events_and_a_third_none",
        ),
    ),
    Mutation(
        "what nobody can place is nobody's to see",
        "fleet/inventory/placing.py",
        "return found.pop() if len(found) == 1 else None",
        "return max(found, default=None)",
        ("tests/fleet/inventory/test_placing.py::test_what_nobody_can_place_no_hospital_sees",),
    ),
    Mutation(
        "metrics are not at the port that is open to the internet",
        "fleet/core/health.py",
        'if request.scheme != "http" or',
        "if",
        ("tests/fleet/mqtt/test_measures.py::test_at_the_gates_port_there_are_none",),
    ),
    Mutation(
        "a private key is closed to others",
        "agent/posix.py",
        "    if info.st_mode & 0o077:\n        raise StateError(",
        "    if False:\n        raise StateError(",
        ("tests/agent/test_renewal.py::test_a_key_that_others_may_read_is_refused",),
    ),
    Mutation(
        "a claim is for one serial of one product line",
        "fleet/enrolment/services.py",
        "if row is None or row.serial != serial or row.product_line_id != product_line:",
        "if row is None:",
        ("tests/fleet/enrolment/test_enrol.py::test_a_claim_that_does_not_fit_is_refused_alike",),
    ),
    Mutation(
        "a used claim is worth nothing to another key",
        "fleet/enrolment/services.py",
        "Credential.objects.filter(device=device, public_key=fingerprint)\n",
        "Credential.objects.filter(device=device)\n",
        (
            "tests/fleet/enrolment/test_enrol.py"
            "::test_another_key_is_another_device_whatever_else_it_shows",
        ),
    ),
    Mutation(
        "a claim that is shown twice is told",
        "fleet/enrolment/services.py",
        "        _alarm(taken.claim, fingerprint, now)\n",
        "",
        (
            "tests/fleet/enrolment/test_enrol.py"
            "::test_one_claim_two_devices_one_wins_and_an_alarm_is_raised",
        ),
    ),
    Mutation(
        "a signing request is signed by its own key",
        "fleet/enrolment/requests.py",
        "if not proved:",
        "if False:",
        ("tests/fleet/enrolment/test_enrol.py::test_a_bad_signing_request_is_refused",),
    ),
    Mutation(
        "a credential is no authority",
        "fleet/enrolment/ca.py",
        "now, LEAF_LIFE)\n        .add_extension(x509.BasicConstraints(ca=False,",
        "now, LEAF_LIFE)\n        .add_extension(x509.BasicConstraints(ca=True,",
        (
            "tests/fleet/enrolment/test_enrol.py"
            "::test_a_csr_chooses_neither_its_name_nor_its_powers",
        ),
    ),
    Mutation(
        "to sign and to store are one",
        "fleet/enrolment/services.py",
        "        with transaction.atomic():\n            row = _claim(",
        "        if True:\n            row = _claim(",
        (
            "tests/fleet/enrolment/test_enrol.py"
            "::test_a_crash_between_sign_and_store_leaves_nothing_half_done",
        ),
    ),
    Mutation(
        "kept out, it looks for the way back whatever its clock says",
        "agent/renewal.py",
        "return Want.RETURN if now - self._changed >= patience else Want.NOTHING",
        "return Want.RETURN if over and now - self._changed >= patience else Want.NOTHING",
        (
            "tests/agent/test_renewal.py"
            "::test_a_clock_a_year_behind_finds_the_way_back_all_the_same",
        ),
    ),
)  # fmt: skip
