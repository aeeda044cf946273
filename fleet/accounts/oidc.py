"""The conversation with an OpenID provider: allauth's, made strict.

allauth keeps the state, PKCE and the exchange of the code. Here is what it leaves open: the
issuer must be the one on record, in the discovery document and in the token; the token is signed by
a key of the provider with an asymmetric algorithm, carries our nonce and is for us; what the
userinfo says counts only for the same subject; the browser's address adds nothing to what we ask.
"""

import hmac
import json
import secrets
from typing import Any

import jwt
import requests
from allauth.socialaccount.adapter import get_adapter
from allauth.socialaccount.models import SocialAccount, SocialLogin
from allauth.socialaccount.providers.base.constants import AuthProcess
from allauth.socialaccount.providers.oauth2.client import OAuth2Error
from allauth.socialaccount.providers.openid_connect.provider import OpenIDConnectProvider
from allauth.socialaccount.providers.openid_connect.views import OpenIDConnectOAuth2Adapter
from django.conf import settings
from django.http import HttpRequest, HttpResponse

from fleet.accounts import providers, recent
from fleet.accounts.models import IdentityProvider
from fleet.accounts.providers import Claims, Refused
from fleet.core import clock

ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"]
LEEWAY_S = 60  # that the provider's clock may be off
TIMEOUT_S = 5
MAX_ANSWER = 256 * 1024  # bytes
_USED = ("authorization_endpoint", "token_endpoint", "jwks_uri")


class AwayError(OAuth2Error):
    """The provider does not answer, or with an error of its own."""


class WrongError(OAuth2Error):
    """The provider's answer is not what it must be."""


class ProviderTalk(OpenIDConnectOAuth2Adapter):
    """One request's part of the conversation with one provider."""

    def __init__(self, request: HttpRequest, row: IdentityProvider) -> None:
        super().__init__(request, row.pk)
        self.row = row
        # A proxy may end TLS: what the browser is sent back to is https all the same.
        self.redirect_uri_protocol = "https" if settings.SESSION_COOKIE_SECURE else None
        self._found: dict[str, Any] | None = None

    @property
    def openid_config(self) -> dict[str, Any]:
        """Raises AwayError, WrongError."""
        if self._found is None:
            where = self.row.issuer.rstrip("/") + "/.well-known/openid-configuration"
            found = _get(where)
            if found.get("issuer") != self.row.issuer:
                raise WrongError("another issuer")
            for name in _USED:
                if not providers.is_secure(found.get(name)):
                    raise WrongError(f"no {name}")
            self._found = found
        return self._found

    def complete_login(
        self, request: HttpRequest, app: Any, token: Any, **kwargs: Any
    ) -> SocialLogin:
        """Raises AwayError, WrongError."""
        claims = self._verified(str(kwargs["response"].get("id_token", "")))
        if "email" not in claims and self.openid_config.get("userinfo_endpoint"):
            said = self._userinfo(token.token)
            if said.get("sub") != claims["sub"]:
                raise WrongError("userinfo of another subject")
            claims = {**said, **claims}
        subject = str(claims["sub"])
        if not 0 < len(subject) <= providers.MAX_SUBJECT:
            raise WrongError("subject")
        request.oidc_claims = claims  # type: ignore[attr-defined]  # for ProviderAdapter
        account = SocialAccount(provider=self.row.pk, uid=subject, extra_data={})
        provider = get_adapter(request).get_provider(request, self.row.pk)
        return SocialLogin(user=None, account=account, email_addresses=[], provider=provider)

    def _verified(self, id_token: str) -> dict[str, Any]:
        keys = _get(self.openid_config["jwks_uri"])
        try:
            kid = jwt.get_unverified_header(id_token).get("kid")
            key = next(
                key for key in jwt.PyJWKSet.from_dict(keys).keys if kid in (None, key.key_id)
            )
            claims: dict[str, Any] = jwt.decode(
                id_token,
                key.key,
                algorithms=ALGORITHMS,
                audience=self.row.client_id,
                issuer=self.row.issuer,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iat", "iss", "aud", "sub"]},
            )
        except (jwt.PyJWTError, StopIteration, ValueError, TypeError, KeyError) as error:
            raise WrongError("token") from error
        if claims.get("azp", self.row.client_id) != self.row.client_id:
            raise WrongError("token for another client")
        return claims

    def _userinfo(self, access_token: str) -> dict[str, Any]:
        where = self.openid_config["userinfo_endpoint"]
        if not providers.is_secure(where):
            raise WrongError("userinfo_endpoint")
        return _get(where, headers={"Authorization": f"Bearer {access_token}"})


class PortalProvider(OpenIDConnectProvider):
    """allauth's name for a provider, with the app that is made of our row."""

    pkce_enabled_default = True

    def get_oauth2_adapter(self, request: HttpRequest) -> ProviderTalk:
        row = providers.enabled(self.app.provider_id)
        if row is None:
            raise WrongError("switched off")
        return ProviderTalk(request, row)

    def begin(
        self, request: HttpRequest, *, next_url: str, hint: str = "", again: bool = False
    ) -> HttpResponse:
        """A redirect to the provider. `again`: it must ask for the person anew."""
        # With a greatest age the provider must say when it saw the person (auth_time).
        params = {
            "nonce": secrets.token_urlsafe(24),
            "max_age": str(settings.SESSION_COOKIE_AGE),
        }
        if hint:
            params["login_hint"] = hint
        if again:
            params |= {"prompt": "login", "max_age": "0"}
        answer: HttpResponse = self.redirect(
            request,
            process=AuthProcess.LOGIN,
            next_url=next_url,
            scope=["openid", "email"],
            auth_params=dict(params),
            nonce=params["nonce"],
        )
        return answer


def claims_of(login: SocialLogin, row: IdentityProvider, raw: dict[str, Any]) -> Claims:
    """What the provider says, once the nonce shows that it says it to this browser's question.

    Raises Refused.
    """
    nonce = login.state.get("nonce")
    if not nonce or not hmac.compare_digest(str(raw.get("nonce", "")), str(nonce)):
        raise Refused("provider_wrong", "nonce")
    now = clock.now().timestamp()
    at = raw.get("auth_time")
    methods = raw.get("amr")
    return Claims(
        subject=login.account.uid,
        email=str(raw.get("email", "")),
        email_verified=raw.get("email_verified") is True,
        second_factor=row.trusts_mfa and isinstance(methods, list) and "mfa" in methods,
        fresh=isinstance(at, int | float) and now - at < recent.limit_s(),
    )


def _get(where: str, headers: dict[str, str] | None = None) -> dict[str, Any]:
    """Raises AwayError, WrongError."""
    try:
        with requests.get(
            where, headers=headers, timeout=TIMEOUT_S, allow_redirects=False, stream=True
        ) as answer:
            data = answer.raw.read(MAX_ANSWER + 1, decode_content=True)
    except (requests.RequestException, OSError) as error:
        raise AwayError("no answer") from error
    if answer.status_code != 200:
        raise AwayError(f"status {answer.status_code}")
    try:
        if len(data) > MAX_ANSWER:
            raise ValueError("too long")
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise WrongError("no JSON") from error
    if not isinstance(found, dict):
        raise WrongError("no object")
    return found
