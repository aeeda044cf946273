"""Telling a database in trouble from a message that the database cannot hold.

In trouble, nothing is decided and everything is tried again; a poison message is refused, alone.
"""

from django.db import DatabaseError, DataError, IntegrityError, InterfaceError, OperationalError

# SQLite's primary result codes that speak of the statement or its values, not of the database:
# ERROR, TOOBIG, CONSTRAINT, MISMATCH, RANGE.
_ABOUT_THE_MESSAGE = frozenset({1, 18, 19, 20, 25})


def is_trouble(error: BaseException) -> bool:
    """Whether the same message may well be accepted later."""
    if not isinstance(error, DatabaseError | InterfaceError):
        return False
    if isinstance(error, IntegrityError | DataError):
        return False
    code = getattr(error.__cause__, "sqlite_errorcode", None)
    if code is None:  # another database, or Django's own
        return isinstance(error, OperationalError | InterfaceError)
    # A missing table also comes as ERROR: then the schema is behind, and no message is to blame.
    return code & 0xFF not in _ABOUT_THE_MESSAGE or "no such" in str(error)
