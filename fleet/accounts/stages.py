"""The one step between knowing who it is and being in: the second factor, if they have one."""

from allauth.mfa.stages import AuthenticateStage
from django.http import HttpRequest

from fleet.accounts import factors
from fleet.accounts.models import User


class SecondFactorStage(AuthenticateStage):
    """As allauth's; a provider's word counts where the organisation's administrator says so."""

    def _should_handle(self, request: HttpRequest) -> bool:
        user = self.login.user
        if isinstance(user, User) and factors.passed(request.session, user):
            return False
        return bool(super()._should_handle(request))
