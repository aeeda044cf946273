"""Who a person is: the second factor, the provider, the token, the command line."""

from tests.mutation.base import Mutation

_SECURITY = "tests/fleet/accounts/test_security.py::"
_SIGN_IN = "tests/fleet/accounts/test_sign_in.py::"
_PROVIDERS = "tests/fleet/accounts/test_providers.py::"
_SCOPES = "tests/fleet/accounts/test_scopes.py::"
_CODES = "tests/fleet/accounts/test_device_codes.py::"

TABLE = (
    Mutation(
        "the vendor's people need a second factor",
        "fleet/accounts/factors.py",
        "    return user.organisation.kind == OrganisationKind.VENDOR",
        "    return False",
        (_SECURITY + "test_without_the_factor_there_are_only_the_pages_that_set_one_up",),
    ),
    Mutation(
        "websockets ask for the second factor",
        "fleet/accounts/doors.py",
        "if user is None or not factors.satisfied(session, user):",
        "if user is None:",
        (_SECURITY + "test_websockets_and_streams_ask_the_same",),
    ),
    Mutation(
        "a code is taken once",
        "fleet/accounts/factors.py",
        'if counter <= row.data.get("last_counter", -1):',
        "if False:",
        (_SIGN_IN + "test_a_code_is_taken_once_and_so_is_no_older_one",),
    ),
    Mutation(
        "guesses are counted",
        "fleet/accounts/services.py",
        '        raise TooMany(_("Too many failed sign-ins. Wait 15 minutes, then try again."))',
        "        pass",
        (
            _SIGN_IN + "test_guessing_codes_is_locked_and_recorded",
            _CODES + "test_guessing_short_codes_is_locked_and_recorded",
        ),
    ),
    Mutation(
        "a passkey signs for our own page",
        "fleet/accounts/forms.py",
        "if origin not in settings.PATENCY_ORIGINS or",
        "if",
        (_SIGN_IN + "test_a_signature_made_on_another_page_is_refused",),
    ),
    Mutation(
        "what hurts most is confirmed",
        "fleet/accounts/recent.py",
        "if not isinstance(user, User) or not is_recent(request.session, user):",
        "if not isinstance(user, User):",
        (
            _SECURITY + "test_what_hurts_most_asks_again_after_five_minutes",
            _CODES + "test_approving_asks_again_who_it_is",
        ),
    ),
    Mutation(
        "a factor that changes ends other sessions",
        "fleet/accounts/events.py",
        "    sign_ins.end_others(user, keep=request.session.session_key, now=clock.now())",
        "    pass",
        (_SECURITY + "test_a_factor_that_changes_signs_out_everywhere_else",),
    ),
    Mutation(
        "a provider speaks for its own organisation",
        "fleet/accounts/providers.py",
        "        if known.user.organisation_id != row.organisation_id:\n"
        "            raise _not_invited(row)\n",
        "",
        (_PROVIDERS + "test_no_provider_brings_in_people_of_another_organisation",),
    ),
    Mutation(
        "an address is believed once it was verified",
        "fleet/accounts/providers.py",
        "    if not claims.email_verified:\n",
        "    if False:\n",
        (_PROVIDERS + "test_who_was_not_invited_stays_out",),
    ),
    Mutation(
        "a token is the provider's, for us, now",
        "fleet/accounts/oidc.py",
        "                issuer=self.row.issuer,\n                leeway",
        "                leeway",
        (_PROVIDERS + "test_a_wrong_answer_signs_nobody_in",),
    ),
    Mutation(
        "an answer belongs to this browser's question",
        "fleet/accounts/oidc.py",
        '    if not nonce or not hmac.compare_digest(str(raw.get("nonce", "")), str(nonce)):',
        "    if False:",
        (_PROVIDERS + "test_a_wrong_answer_signs_nobody_in",),
    ),
    Mutation(
        "an organisation can insist on its provider",
        "fleet/accounts/adapters.py",
        "if required is not None and not by_provider:",
        "if False:",
        (_PROVIDERS + "test_an_organisation_can_insist_on_its_provider",),
    ),
    Mutation(
        "a token does what it is for",
        "fleet/accounts/permissions.py",
        "    return user.token_scopes is None or SCOPE_OF[action].value in user.token_scopes",
        "    return True",
        (
            _SCOPES + "test_a_token_to_read_changes_nothing",
            _SCOPES + "test_a_stream_wants_a_token_for_access",
        ),
    ),
    Mutation(
        "a command line gets its token once",
        "fleet/accounts/device_codes.py",
        '    row.state = "used"\n',
        "",
        (_CODES + "test_from_the_first_call_to_the_token",),
    ),
)
