"""Why an enrolment is turned down."""

from django.utils.translation import gettext as _

from fleet.core.errors import Conflict, NotAllowed
from fleet.enrolment.models import Claim


class ClaimRefused(NotAllowed):
    """Unknown, revoked, or for another serial or product line: the asker learns not which."""

    code = "claim_refused"

    def __init__(self) -> None:
        super().__init__(
            _("This claim is not good for this injector. Ask the vendor for a new bundle.")
        )


class CredentialRevoked(ClaimRefused):
    """Told to nobody but the holder of the revoked key: this network is not what keeps it out."""

    code = "credential_revoked"


class CredentialLapsed(ClaimRefused):
    """Told to nobody but the holder of the key: its certificate ended too long ago."""

    code = "credential_lapsed"


class ClaimTaken(Conflict):
    """The claim belongs to another key."""

    code = "claim_taken"

    def __init__(self, claim: Claim) -> None:
        super().__init__(
            _("This claim has been used with another key. Ask the vendor to look into it.")
        )
        self.claim = claim


class CredentialSuperseded(ClaimTaken):
    """The key is the one that the device had before: a copy of an old disk shows it."""

    code = "credential_superseded"


class BoardChanged(Conflict):
    """A claim to come back with, shown by what cannot be the same machine."""

    code = "board_changed"

    def __init__(self) -> None:
        super().__init__(
            _(
                "This is not the machine that was enrolled: it has another audit key. Retire the "
                "injector, then enrol the new machine."
            )
        )
