"""An OpenID provider for tests: real HTTP, real signatures, and it can lie in every way.

    with OpenIDProvider() as provider: provider.claims["email"] = …; provider.lie = "issuer"

`sign_in(client, …)` walks a Django test client through it, as a browser would.
"""

import contextlib
import html
import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key


def _key() -> RSAPrivateKey:
    return generate_private_key(65537, 2048)


@dataclass
class OpenIDProvider:
    client_id: str = "portal"
    claims: dict[str, Any] = field(
        default_factory=lambda: {
            "sub": "s-1", "email": "mia@north.example", "email_verified": True,
        }
    )  # fmt: skip
    userinfo: dict[str, Any] | None = None  # if e-mail comes that way
    lie: str = ""
    key: RSAPrivateKey = field(default_factory=_key)
    asked: dict[str, str] = field(default_factory=dict)  # the last authorization request
    exchanged: dict[str, str] = field(default_factory=dict)  # the last token request
    server: ThreadingHTTPServer | None = None

    @property
    def issuer(self) -> str:
        assert self.server is not None
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def authorize(self, address: str) -> dict[str, str]:
        """What comes back to the browser that opens this address."""
        self.asked = {k: v[0] for k, v in parse_qs(urlsplit(address).query).items()}
        return {"code": "c-1", "state": self.asked["state"]}

    def answer(self, path: str, body: str, bearer: str) -> tuple[int, Any]:
        if self.lie == "down":
            return 503, {}
        if path.endswith("/openid-configuration"):
            base = self.issuer
            return 200, {
                "issuer": "http://127.0.0.1:1" if self.lie == "discovery" else base,
                "authorization_endpoint": f"{base}/auth",
                "token_endpoint": "http://evil.example/t" if self.lie == "x" else f"{base}/token",
                "jwks_uri": f"{base}/keys",
                "userinfo_endpoint": f"{base}/me",
                "token_endpoint_auth_methods_supported": ["client_secret_basic"],
            }
        if path == "/keys":
            key = _key() if self.lie == "key" else self.key
            public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))
            return 200, {"keys": [{**public, "kid": "k", "use": "sig", "alg": "RS256"}]}
        if path == "/me":
            said = {"sub": self.claims["sub"], **(self.userinfo or {})}
            return 200, {**said, "sub": "other"} if self.lie == "userinfo" else said
        if path == "/token":
            self.exchanged = {k: v[0] for k, v in parse_qs(body).items()}
            if self.lie == "no_token":
                return 200, {"access_token": "a", "token_type": "Bearer"}
            if self.lie == "refuses":
                return 400, {"error": "invalid_grant"}
            return 200, {"access_token": "a", "token_type": "Bearer", "id_token": self._token()}
        return 404, {}

    def _token(self) -> str:
        now = int(time.time())
        claims = {
            "iss": self.issuer, "aud": self.client_id, "iat": now, "exp": now + 300,
            "nonce": self.asked.get("nonce"), "auth_time": now, **self.claims,
        }  # fmt: skip
        lies: dict[str, dict[str, Any]] = {
            "issuer": {"iss": "http://127.0.0.1:1"},
            "audience": {"aud": "somebody else"},
            "azp": {"azp": "somebody else"},
            "expired": {"exp": now - 120},
            "nonce": {"nonce": "another"},
            "no_nonce": {"nonce": None},
            "no_subject": {"sub": ""},
            "long_subject": {"sub": "x" * 500},
        }
        claims |= lies.get(self.lie, {})
        if self.lie == "none":
            return jwt.encode(claims, None, algorithm="none", headers={"kid": "k"})
        if self.lie == "hs256":  # signed with what everybody can read
            numbers = self.key.public_key().public_numbers()
            return jwt.encode(claims, str(numbers.n) * 2, algorithm="HS256", headers={"kid": "k"})
        return jwt.encode(claims, self.key, algorithm="RS256", headers={"kid": "k"})

    def __enter__(self) -> "OpenIDProvider":
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer("")

            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                self._answer(self.rfile.read(length).decode())

            def _answer(self, body: str) -> None:
                path = urlsplit(self.path).path
                status, told = provider.answer(path, body, self.headers.get("Authorization", ""))
                data = b"<html>" if provider.lie == "no_json" else json.dumps(told).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(data)

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        assert self.server is not None
        self.server.shutdown()
        self.server.server_close()


def target_of(response: Any) -> str:
    """Where the page that leads to a provider leads."""
    found = re.search(r'http-equiv="refresh" content="0; url=([^"]+)"', response.content.decode())
    assert found is not None, response.content.decode()
    return html.unescape(found[1])


def sign_in(client: Any, provider: OpenIDProvider, row: str, **form: str) -> Any:
    """From the button to the last answer."""
    address = target_of(client.post(f"/sign-in/with/{row}/", form))
    return client.get(f"/sign-in/with/{row}/back/", provider.authorize(address))


@contextlib.contextmanager
def two() -> Iterator[tuple[OpenIDProvider, OpenIDProvider]]:
    with OpenIDProvider() as one, OpenIDProvider() as other:
        yield one, other
