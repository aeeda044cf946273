"""The pages of accounts: getting in, what one gets in with, one's own tokens."""

from fleet.accounts.pages.connect import connect
from fleet.accounts.pages.entrance import code, passkey, sign_in, sign_out
from fleet.accounts.pages.organisation import organisation, provider, provider_back
from fleet.accounts.pages.security import (
    app_new,
    app_remove,
    codes,
    codes_new,
    confirm,
    passkey_new,
    passkey_remove,
    password,
    second_factor,
    security,
    session_end,
    sessions,
    sessions_end,
)
from fleet.accounts.pages.tokens import account, language, token_new, token_revoke

__all__ = [
    "account",
    "app_new",
    "app_remove",
    "code",
    "codes",
    "codes_new",
    "confirm",
    "connect",
    "language",
    "organisation",
    "passkey",
    "passkey_new",
    "passkey_remove",
    "password",
    "provider",
    "provider_back",
    "second_factor",
    "security",
    "session_end",
    "sessions",
    "sessions_end",
    "sign_in",
    "sign_out",
    "token_new",
    "token_revoke",
]
