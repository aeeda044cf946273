"""The sign-in form."""

from django.contrib.auth.forms import AuthenticationForm
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from fleet.accounts import services
from fleet.accounts.backends import client_address
from fleet.core import clock
from fleet.core.errors import TooMany


class SignInForm(AuthenticationForm):
    """As Django's, and it says so when sign-in is throttled."""

    error_messages = {
        "invalid_login": _(
            "The user name or the password is wrong. Check both; capital letters matter."
        ),
        "inactive": _("This account is closed. Ask an administrator."),
    }

    def clean(self) -> dict[str, object]:
        username = str(self.cleaned_data.get("username") or "")
        try:
            services.check_sign_in_rate(
                username=username, address=client_address(self.request), now=clock.now()
            )
        except TooMany as error:
            raise ValidationError(error.message, code=error.code) from error
        return super().clean()
