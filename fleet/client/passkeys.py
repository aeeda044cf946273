"""The fingerprint of an access passkey, as the page that made it shows it (docs/browser.md)."""

import hashlib

_DIGITS = 40
_GROUP = 4
_BYTES = 20  # of the digest; 160 bits, of which forty digits keep 132


def spoken(id: bytes, key: bytes) -> str:
    """Forty digits to read over the telephone, in groups of four. `id` is the credential's, at most
    255 bytes; `key` its public key in COSE form."""
    digest = hashlib.sha256(bytes([len(id)]) + id + key).digest()
    digits = f"{int.from_bytes(digest[:_BYTES], 'big') % 10**_DIGITS:0{_DIGITS}d}"
    return " ".join(digits[at : at + _GROUP] for at in range(0, _DIGITS, _GROUP))
