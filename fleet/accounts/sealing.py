"""Secrets that must be read again (TOTP keys, secrets at providers), sealed in the database.

Under a key made from SECRET_KEY: a copy of the database alone opens nothing. When SECRET_KEY is
lost, they are lost with it: people set their second factor up again (`manage.py person reset`).
"""

import base64

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings


class UnreadableError(Exception):
    """Sealed under another SECRET_KEY, or damaged."""


def _fernet() -> Fernet:
    derived = HKDF(SHA256(), 32, None, b"patency accounts sealing 1")
    return Fernet(base64.urlsafe_b64encode(derived.derive(settings.SECRET_KEY.encode())))


def seal(text: str) -> str:
    return _fernet().encrypt(text.encode()).decode("ascii")


def unseal(sealed: str) -> str:
    """Raises UnreadableError."""
    try:
        return _fernet().decrypt(sealed.encode()).decode()
    except (InvalidToken, ValueError) as error:
        raise UnreadableError from error
