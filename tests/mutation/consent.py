"""What the hospital decides, and what a person at the injector does."""

from tests.mutation.base import Mutation

_SITE = "tests/agent/access/test_site.py"
_PRESENCE = "tests/agent/access/test_presence.py"
_WIRE = "tests/agent/wire/test_site_policy.py"

TABLE = (
    Mutation(
        "a hospital's key never comes from the network",
        "agent/access/site.py",
        "if not (known or at_panel):",
        "if False:",
        (f"{_SITE}::test_a_key_never_comes_from_the_network",),
    ),
    Mutation(
        "a policy that loosens waits for a person",
        "agent/access/site.py",
        "if known and not self.loosened(local, document):",
        "if known:",
        (f"{_SITE}::test_what_loosens_anything_waits_for_a_person",),
    ),
    Mutation(
        "a new key waits for a person",
        "agent/access/site.py",
        "if known and not self.loosened(local, document):",
        "if not self.loosened(local, document):",
        (f"{_SITE}::test_the_first_one_waits_for_a_person_though_it_only_tightens",),
    ),
    Mutation(
        "the hospital's policy never goes back",
        "agent/access/site.py",
        "document.verified(self.version)",
        "document.verified(0)",
        (f"{_SITE}::test_no_version_comes_back_and_there_are_no_two_of_one",),
    ),
    Mutation(
        "the hospital's policy is verified when it is read back",
        "agent/access/site.py",
        "            document.verified()\n",
        "            pass\n",
        (f"{_SITE}::test_a_file_that_cannot_be_believed_shuts_the_door",),
    ),
    Mutation(
        "the hospital's policy is signed",
        "agent/wire/site_policy.py",
        "Ed25519PublicKey.from_public_bytes(key).verify(signature, _PURPOSE + data)",
        "Ed25519PublicKey.from_public_bytes(key)",
        (f"{_WIRE}::test_nobody_else_signs_one",),
    ),
    Mutation(
        "the vendor can only tighten",
        "agent/wire/site_policy.py",
        "return stricter(site, msgspec.structs.replace(site, **wanted))",
        "return msgspec.structs.replace(site, **wanted)",
        (f"{_WIRE}::test_a_tightening_allows_nothing_that_the_site_does_not",),
    ),
    Mutation(
        "policies are compared in every hour",
        "agent/wire/site_policy.py",
        "        return [(settings(old), new.at(minute)) for minute in sorted(new.turns())]\n",
        "        return [(settings(old), settings(new))]\n",
        (f"{_WIRE}::test_what_is_loosened_is_named",),
    ),
    Mutation(
        "a person's PIN accepts the hospital's policy",
        "agent/access/consent.py",
        "actor = await self._approver(args)",
        'actor = "approver-1"',
        (
            "tests/agent/access/test_consent.py"
            "::test_a_policy_is_accepted_at_the_panel_and_outlives_a_restart",
        ),
    ),
    Mutation(
        "four eyes are two people's",
        "agent/access/at_panel.py",
        "if not renewal and approver in it.approvers:",
        "if False:",
        (f"{_PRESENCE}::test_two_different_people_approve",),
    ),
    Mutation(
        "nobody approves their own session",
        "agent/access/at_panel.py",
        "PanelResult.SELF if who == it.request.specialist else None",
        "None",
        (f"{_PRESENCE}::test_nobody_approves_their_own_session",),
    ),
    Mutation(
        "a consent is for one ticket of one specialist",
        "agent/access/tickets.py",
        "and (asked.specialist, asked.ticket) == (self.specialist, self.ticket)",
        "",
        (f"{_PRESENCE}::test_what_a_consent_does_not_cover",),
    ),
    Mutation(
        "a consent covers no higher level",
        "agent/access/tickets.py",
        "and self.level.covers(it.level)",
        "",
        (f"{_PRESENCE}::test_no_higher_level_than_was_approved",),
    ),
    Mutation(
        "a consent ends, and with the policy",
        "agent/access/tickets.py",
        "min(self.until, self.given_at + policy.ticket_h * HOUR_S)\n            and",
        "float('inf')\n            and",
        (f"{_PRESENCE}::test_its_time_is_over_by_the_boot_clock",),
    ),
    Mutation(
        "a ticket to follow and broken glass are no tickets",
        "agent/access/tickets.py",
        "return it.request.ticket is not None and not it.request.break_glass",
        "return True",
        (
            f"{_PRESENCE}::test_what_a_consent_does_not_cover",
            f"{_PRESENCE}::test_what_never_gives_consent_to_a_ticket",
        ),
    ),
    Mutation(
        "Stop takes the consent back",
        "agent/access/at_panel.py",
        "                self._consents.withdraw(it)\n",
        "",
        (f"{_PRESENCE}::test_stop_withdraws_it_and_the_switch_does",),
    ),
    Mutation(
        "in use a consent stands for nobody",
        "agent/access/desk.py",
        "        if self._clinical.in_use:\n            return None\n        return self._consents",
        "        return self._consents",
        (f"{_PRESENCE}::test_in_use_a_consent_stands_for_nobody",),
    ),
    Mutation(
        "digits and hours for one session are not carried to another",
        "agent/panel/app.py",
        "        self._asked = asked\n        self._hours = 0\n",
        "        self._asked = asked\n",
        (
            "tests/agent/panel/test_consent.py"
            "::test_an_approval_counts_for_the_ticket_for_as_long_as_was_chosen",
        ),
    ),
)
