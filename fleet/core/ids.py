"""Random identifiers, never reused."""

import secrets


def new_device_id() -> str:
    """128 random bits as 22 characters of `[A-Za-z0-9_-]`, which is what the wire allows."""
    return secrets.token_urlsafe(16)


def new_short_id() -> str:
    """72 random bits as 12 characters of `[A-Za-z0-9_-]`: organisations and sites."""
    return secrets.token_urlsafe(9)


def new_hex32() -> str:
    """128 random bits as 32 hexadecimal digits: sessions and executions."""
    return secrets.token_hex(16)
