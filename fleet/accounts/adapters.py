"""What allauth does here, and what it does not: nobody signs up, no e-mail address opens a door."""

from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.internal.flows.login import record_authentication
from allauth.account.internal.stagekit import clear_login
from allauth.core import context
from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.mfa.models import Authenticator
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from allauth.socialaccount.models import SocialApp, SocialLogin
from allauth.socialaccount.providers.base.constants import AuthError, AuthProcess
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from fleet.accounts import factors, oidc, providers, recent, sealing, services
from fleet.accounts.backends import client_address
from fleet.accounts.oidc import PortalProvider
from fleet.accounts.providers import Claims, Refused
from fleet.core import clock

# allauth's templates of messages -> our words. What is not here is not said.
_MESSAGES = {
    "mfa/messages/totp_activated.txt": gettext_lazy("Your authenticator app is set up."),
    "mfa/messages/totp_deactivated.txt": gettext_lazy("The authenticator app is removed."),
    "mfa/messages/webauthn_added.txt": gettext_lazy("The passkey is added."),
    "mfa/messages/webauthn_removed.txt": gettext_lazy("The passkey is removed."),
    "account/messages/password_changed.txt": gettext_lazy(
        "The password is changed. Everywhere else you are signed out."
    ),
}
_ADDRESS = "0.0.0.0"  # noqa: S104  (of a peer without one, such as a socket in the file system)


class AccountAdapter(DefaultAccountAdapter):
    error_messages = {
        **DefaultAccountAdapter.error_messages,
        "enter_current_password": gettext_lazy("This is not your present password."),
    }

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return False

    def get_client_ip(self, request: HttpRequest) -> str:
        return client_address(request) or _ADDRESS

    def get_password_change_redirect_url(self, request: HttpRequest) -> str:
        return reverse("mfa_index")

    def add_message(
        self,
        request: HttpRequest,
        level: int,
        message_template: str | None = None,
        message_context: dict[str, Any] | None = None,
        extra_tags: str = "",
        message: str | None = None,
    ) -> None:
        text = message or _MESSAGES.get(message_template or "")
        if text:
            messages.add_message(request, level, str(text), extra_tags=extra_tags)

    def pre_login(self, request: HttpRequest, user: Any, **more: Any) -> HttpResponse | None:
        """Before the second factor, whatever the first was: password, passkey, provider."""
        answer: HttpResponse | None = super().pre_login(request, user, **more)
        if answer is not None:
            return answer
        # Taken out: what waits for the second factor is kept in the session, without the provider.
        by_provider = (more.get("signal_kwargs") or {}).pop("sociallogin", None) is not None
        required = providers.required_of(user)
        if required is not None and not by_provider:
            clear_login(request)
            services.refuse_sign_in(user, "provider_required", now=clock.now())
            messages.error(
                request,
                _("Your organisation signs in with %(provider)s alone. Choose “Sign in with your "
                  "organisation”.") % {"provider": required.name},
            )  # fmt: skip
            return redirect("account_login")
        claims: Claims | None = getattr(request, "oidc_person", None)
        if by_provider and claims is not None:
            record_authentication(
                request, user, "provider", fresh=claims.fresh, second_factor=claims.second_factor
            )
        return None

    def login(self, request: HttpRequest, user: Any) -> None:
        super().login(request, user)
        request.session.set_expiry(None)  # as long as SESSION_COOKIE_AGE says, from here on

    def get_login_stages(self) -> list[str]:
        return ["fleet.accounts.stages.SecondFactorStage"]

    def respond_user_inactive(self, request: HttpRequest, user: Any) -> HttpResponse:
        messages.error(request, _("This account is closed. Ask an administrator."))
        return redirect("account_login")

    def is_reauthentication_required(self, *, app: str, **kwargs: Any) -> bool:
        request = context.request
        return not recent.is_recent(request.session, request.user)

    def get_reauthentication_methods(self, user: Any) -> list[dict[str, str]]:
        """One page of ours has them all."""
        if not user.is_authenticated:
            return []
        return [{"id": "confirm", "description": "", "url": reverse("account_reauthenticate")}]


class FactorAdapter(DefaultMFAAdapter):
    error_messages = {
        **DefaultMFAAdapter.error_messages,
        "incorrect_code": gettext_lazy("This is not right. Try again."),
        "cannot_delete_authenticator": gettext_lazy(
            "Your organisation asks for a second factor. Add another one before you remove this."
        ),
    }

    def encrypt(self, text: str) -> str:
        return sealing.seal(text)

    def decrypt(self, encrypted_text: str) -> str:
        """Raises ValueError."""
        try:
            return sealing.unseal(encrypted_text)
        except sealing.UnreadableError as error:
            raise ValueError("sealed under another key") from error

    def get_totp_label(self, user: Any) -> str:
        return str(user.username)

    def can_delete_authenticator(self, authenticator: Authenticator) -> bool:
        return factors.may_remove(authenticator, context.request.user)

    def generate_authenticator_name(self, user: Any, type: Authenticator.Type) -> str:
        return _("Passkey %(number)s") % {
            "number": Authenticator.objects.filter(user=user, type=type).count() + 1
        }

    def get_public_key_credential_rp_entity(self) -> dict[str, str]:
        host = context.request.get_host()
        return {"id": host.partition(":")[0], "name": "Patency"}

    def get_public_key_credential_user_entity(self, user: Any) -> dict[str, Any]:
        entity: dict[str, Any] = super().get_public_key_credential_user_entity(user)
        return {**entity, "display_name": user.display_name, "name": user.username}


class ProviderAdapter(DefaultSocialAccountAdapter):
    """Providers are rows of organisations; who they name is let in by accounts.providers alone."""

    def list_apps(
        self, request: HttpRequest, provider: str | None = None, client_id: str | None = None
    ) -> list[SocialApp]:
        row = providers.enabled(provider or "")
        if row is None:
            return []
        return [
            SocialApp(
                provider="openid_connect",
                provider_id=row.pk,
                name=row.name,
                client_id=row.client_id,
                secret=providers.secret(row),
                settings={"server_url": row.issuer},
            )
        ]

    def get_provider(
        self, request: HttpRequest, provider: str, client_id: str | None = None
    ) -> PortalProvider:
        """Raises SocialApp.DoesNotExist."""
        return PortalProvider(request, app=self.get_app(request, provider=provider))

    def is_open_for_signup(self, request: HttpRequest, sociallogin: SocialLogin) -> bool:
        return False

    def pre_social_login(self, request: HttpRequest, sociallogin: SocialLogin) -> None:
        """Decide who it is; whoever allauth found itself does not count. Raises Refused."""
        row = providers.enabled(sociallogin.account.provider)
        if row is None or sociallogin.state.get("process") != AuthProcess.LOGIN:
            raise Refused("provider_wrong", "switched off")
        raw = request.oidc_claims  # type: ignore[attr-defined]  # accounts.oidc has set it
        claims = oidc.claims_of(sociallogin, row, raw)
        sociallogin.user = providers.person(row, claims, now=clock.now())
        request.oidc_person = claims  # type: ignore[attr-defined]  # for AccountAdapter

    def on_authentication_error(
        self,
        request: HttpRequest,
        provider: PortalProvider,
        error: Any = None,
        exception: Exception | None = None,
        extra_context: dict[str, Any] | None = None,
    ) -> None:
        """Whatever went wrong between browser and provider. Raises it, or Refused."""
        if exception is not None:
            raise exception
        if error == AuthError.CANCELLED:
            raise Refused("cancelled", _("You left the sign-in. Begin again when you like."))
        raise Refused(
            "provider_state",
            _("This sign-in was begun in another browser, is over or was used. Begin again."),
        )
