"""Who stands behind a browser's session, for what Django's middleware does not see: websockets."""

from django.contrib.auth import HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.base import SessionBase
from django.utils.crypto import constant_time_compare

from fleet.accounts import factors
from fleet.accounts.models import User


def person_of(session: SessionBase) -> User | None:
    """The session's person as the database has them now. None once signed out, closed or changed,
    and as long as a second factor that they need is missing."""
    number = session.get(SESSION_KEY)
    if number is None or not session.session_key or not session.exists(session.session_key):
        return None
    user = (
        User.objects.select_related("organisation").filter(pk=str(number), is_active=True).first()
    )
    if user is None or not factors.satisfied(session, user):
        return None
    same = constant_time_compare(session.get(HASH_SESSION_KEY, ""), user.get_session_auth_hash())
    return user if same else None
