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


class ClaimTaken(Conflict):
    """The claim belongs to another key."""

    code = "claim_taken"

    def __init__(self, claim: Claim) -> None:
        super().__init__(
            _("This claim has been used with another key. Ask the vendor to look into it.")
        )
        self.claim = claim


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
