"""Settings of the portal. Everything an operator may set is an environment variable, read here.

PATENCY_DATA     where the database, keys and bundles are (var/portal)
PATENCY_HTTP     address of the web server (127.0.0.1:8000)
PATENCY_MQTT     address of the gate, which also serves HTTPS (127.0.0.1:8443)
PATENCY_PROXIES  addresses or networks of our own proxies, comma-separated (none): what comes from
                 there to the gate must begin with a PROXY header, which names the real peer
PATENCY_LINK     address of an access server's link, for up --only gate (its bundle's)
PATENCY_METRICS  address where metrics may be read, for administrators alone (none; the portal has
                 them at /metrics for this machine besides)
PATENCY_PUBLIC   host:port by which devices reach the main server (PATENCY_MQTT), published on the
                 allow-list with PATENCY_PUBLIC_ADDRESS, _PLACE and _REGION (none)
PATENCY_NOTICE_DAYS  days that hospitals are told before the allow-list changes (30)
PATENCY_ORIGINS  public origins of the portal, comma-separated (http on localhost and the two ports)
PATENCY_ACCESS  address at which the demo serves the browser client (127.0.0.1:8001)
PATENCY_ACCESS_ORIGIN  origin of the browser client, an anchor of new provisioning bundles (none)
PATENCY_SECRET   signs cookies; without it a file `secret` (0600) is made in PATENCY_DATA
PATENCY_CONTACT_DEVICE, PATENCY_CONTACT_CONNECTIVITY, PATENCY_CONTACT_CYBERSECURITY
                 the three support contacts at the foot of every page (R-ASR-3): a telephone
                 number, an e-mail address or an https address each (the demo's)
PATENCY_SMTP     host:port of the mail server that takes our notices (none: no e-mail), with
                 PATENCY_SMTP_TLS (starttls, tls or none), _USER and _PASSWORD
PATENCY_MAIL_FROM  the sender of notices (patency@localhost)
PATENCY_WEBHOOK_PRIVATE  1 lets webhooks go to private and loopback addresses (0)
PATENCY_LOG      debug, info, warning or error (info for ours, warning for the libraries)
PATENCY_DEBUG    1 shows tracebacks in pages; never where others can reach it
"""

import errno
import os
import re
import secrets
import shlex
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agent.wire.catalogue import ClinicalState, ExecutionState, JobKind, SessionState
from fleet.core.files import read_private

BASE_DIR = Path(__file__).resolve().parent.parent
_SECRET_LENGTH = 32  # characters


def _text(name: str, default: str) -> str:
    return os.environ.get(name, "").strip() or default


def _list(name: str, default: str) -> list[str]:
    return [part.strip() for part in _text(name, default).split(",") if part.strip()]


def _wrong(name: str, value: str, remedy: str) -> SystemExit:
    """One line, before there is any of Django to show it."""
    return SystemExit(f"{name} is {value!r}. {remedy}")


def _number(name: str, default: int, *, most: int) -> int:
    text = _text(name, str(default))
    if not (text.isascii() and text.isdecimal() and int(text) <= most):
        raise _wrong(name, text, f"Write a whole number from 0 to {most}, such as {default}.")
    return int(text)


def _address(name: str, default: str, example: str) -> str:
    text = _text(name, default)
    host, _colon, port = text.rpartition(":")
    known = bool(host) and port.isascii() and port.isdecimal() and int(port) <= 65535
    if text and not known:
        raise _wrong(name, text, f"Write host:port, such as {example}.")
    return text


_ORIGIN = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?")
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


def _origins(name: str, default: str) -> list[str]:
    found = _list(name, default)
    for text in found:
        if _ORIGIN.fullmatch(text) is None:
            told = "Write what a browser shows before the path, such as https://portal.example."
            raise _wrong(name, text, told)
    return found


def _level(default: str) -> str:
    text = _text("PATENCY_LOG", default).upper()
    if text not in _LEVELS:
        raise _wrong("PATENCY_LOG", text, "Write debug, info, warning or error.")
    return text


def _secret(folder: Path) -> str:
    """The secret of this data directory; made once, even when two processes start together."""
    path = folder / "secret"
    try:
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "it is no directory")
        if not path.exists():
            _make_secret(folder, path)
        secret = read_private(path).decode(errors="replace").strip()
    except OSError as error:
        # Before there is any of Django to show it.
        raise SystemExit(
            f"The data directory {folder} cannot be used ({error.strerror}). Choose one that you "
            "may write, such as: PATENCY_DATA=var/portal"
        ) from error
    if len(secret) < _SECRET_LENGTH or not secret.isascii():
        raise SystemExit(
            f"{path} is damaged. Another is made, and everybody signs in again, once it is away: "
            f"rm {shlex.quote(str(path))}"
        )
    return secret


def _make_secret(folder: Path, path: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = folder / f"secret.{os.getpid()}"
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_urlsafe(48))
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


PATENCY_DATA = Path(_text("PATENCY_DATA", str(BASE_DIR / "var" / "portal"))).resolve()
PATENCY_HTTP = _address("PATENCY_HTTP", "127.0.0.1:8000", "127.0.0.1:8000")
PATENCY_MQTT = _address("PATENCY_MQTT", "127.0.0.1:8443", "0.0.0.0:443")
PATENCY_PROXIES = _list("PATENCY_PROXIES", "")
PATENCY_LINK = _address("PATENCY_LINK", "", "10.1.2.3:8444")
PATENCY_METRICS = _address("PATENCY_METRICS", "", "127.0.0.1:9464")
PATENCY_PUBLIC = _address("PATENCY_PUBLIC", "", "portal.example:443")
PATENCY_PUBLIC_ADDRESS = _text("PATENCY_PUBLIC_ADDRESS", "")
PATENCY_PUBLIC_PLACE = _text("PATENCY_PUBLIC_PLACE", "")
PATENCY_PUBLIC_REGION = _text("PATENCY_PUBLIC_REGION", "")
PATENCY_NOTICE_DAYS = _number("PATENCY_NOTICE_DAYS", 30, most=3650)
_http_port = PATENCY_HTTP.rpartition(":")[2]
_mqtt_port = PATENCY_MQTT.rpartition(":")[2]
PATENCY_ORIGINS = _origins(
    "PATENCY_ORIGINS",
    f"http://localhost:{_http_port},http://127.0.0.1:{_http_port},"
    f"https://localhost:{_mqtt_port},https://127.0.0.1:{_mqtt_port}",
)
# The panel's are in its injector's contacts.json; without either, both show the same demo contacts.
PATENCY_ACCESS = _address("PATENCY_ACCESS", "127.0.0.1:8001", "127.0.0.1:8001")
PATENCY_ACCESS_ORIGIN = "".join(_origins("PATENCY_ACCESS_ORIGIN", "")[:1])
PATENCY_CONTACTS = {
    "device": _text("PATENCY_CONTACT_DEVICE", "+1 800 555 0142"),
    "connectivity": _text("PATENCY_CONTACT_CONNECTIVITY", "+1 800 555 0143"),
    "cybersecurity": _text("PATENCY_CONTACT_CYBERSECURITY", "security@patency.example"),
}
PATENCY_WEBHOOK_PRIVATE = _text("PATENCY_WEBHOOK_PRIVATE", "0") == "1"
PATENCY_SMTP = _address("PATENCY_SMTP", "", "mail.example:587")
EMAIL_HOST, _colon, _smtp_port = PATENCY_SMTP.rpartition(":")
EMAIL_PORT = int(_smtp_port or "25")
EMAIL_HOST_USER = _text("PATENCY_SMTP_USER", "")
EMAIL_HOST_PASSWORD = _text("PATENCY_SMTP_PASSWORD", "")
EMAIL_USE_TLS = _text("PATENCY_SMTP_TLS", "starttls") == "starttls"
EMAIL_USE_SSL = _text("PATENCY_SMTP_TLS", "starttls") == "tls"
EMAIL_TIMEOUT = 10  # seconds
DEFAULT_FROM_EMAIL = _text("PATENCY_MAIL_FROM", "patency@localhost")
# Only when no origin is plain: the demo signs in on http://localhost.
_ALL_HTTPS = all(origin.startswith("https://") for origin in PATENCY_ORIGINS)

SECRET_KEY = os.environ.get("PATENCY_SECRET") or _secret(PATENCY_DATA)
DEBUG = _text("PATENCY_DEBUG", "0") == "1"
ALLOWED_HOSTS = sorted({urlsplit(origin).hostname or "" for origin in PATENCY_ORIGINS})
CSRF_TRUSTED_ORIGINS = PATENCY_ORIGINS

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.humanize",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "allauth.socialaccount",
    "allauth.usersessions",
    "channels",
    "csp",
    "django_htmx",
    "drf_spectacular",
    "rest_framework",
    "fleet.core",
    "fleet.audit",
    "fleet.accounts",
    "fleet.inventory",
    "fleet.servers",
    "fleet.entitlements",
    "fleet.enrolment",
    "fleet.telemetry",
    "fleet.access",
    "fleet.jobs",
    "fleet.live",
    "fleet.mqtt",
    "fleet.pages",
    "fleet.demo",
]

MIDDLEWARE = [
    "fleet.core.health.probes_need_no_name",
    "django.middleware.security.SecurityMiddleware",
    "csp.middleware.CSPMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "fleet.accounts.middleware.UserLanguageMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "fleet.pages.errors.explain_methods",
    "fleet.accounts.middleware.SecondFactorMiddleware",
    "fleet.accounts.middleware.SeenMiddleware",
]

ROOT_URLCONF = "fleet.urls"
ASGI_APPLICATION = "fleet.asgi.application"

TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": False,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.template.context_processors.i18n",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
            "loaders": [
                (
                    "django.template.loaders.cached.Loader",
                    [
                        "django.template.loaders.filesystem.Loader",
                        "django.template.loaders.app_directories.Loader",
                    ],
                )
            ],
        },
    }
]
if DEBUG:  # read templates from disk each time
    TEMPLATES[0]["OPTIONS"]["loaders"] = TEMPLATES[0]["OPTIONS"]["loaders"][0][1]

DATABASES = {
    "default": {
        "ENGINE": "fleet.core.sqlite",
        "NAME": PATENCY_DATA / "portal.db",
        "CONN_MAX_AGE": None,  # each thread that serves keeps its own (fleet.core.handler)
        "OPTIONS": {
            # A write lock from BEGIN on: a transaction that reads first never fails half-way.
            "transaction_mode": "IMMEDIATE",
            "timeout": 5,  # seconds
            # FULL: a PUBACK says "decided", which must survive the machine losing power.
            "init_command": (
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-16000;"
                "PRAGMA mmap_size=134217728; PRAGMA temp_store=MEMORY;"
                "PRAGMA wal_autocheckpoint=16384;"  # pages, 64 MiB (fleet.core.sqlite.checkpoint)
            ),
        },
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = ["fleet.accounts.backends.ThrottledBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 12},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "/sign-in/"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "/sign-in/"

# --- allauth: what it may do here; fleet/accounts/adapters.py says the rest --------------------
ACCOUNT_ADAPTER = "fleet.accounts.adapters.AccountAdapter"
ACCOUNT_LOGIN_METHODS = {"username"}
ACCOUNT_SIGNUP_FIELDS = ["username*", "password1*"]
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_LOGOUT_REDIRECT_URL = LOGOUT_REDIRECT_URL
ACCOUNT_RATE_LIMITS = False  # guesses are counted in the database (accounts.services)
ACCOUNT_REAUTHENTICATION_TIMEOUT = 300  # seconds; accounts.recent
ACCOUNT_LOGIN_TIMEOUT = 600  # seconds between the password and the code
MFA_ADAPTER = "fleet.accounts.adapters.FactorAdapter"
MFA_SUPPORTED_TYPES = ["totp", "webauthn", "recovery_codes"]
MFA_PASSKEY_LOGIN_ENABLED = True
MFA_RATE_LIMITS = False
MFA_RECOVERY_CODES_SHOW_ONCE = True
MFA_TOTP_ISSUER = "Patency"
MFA_TOTP_TOLERANCE = 1  # steps of 30 s that a telephone's clock may be off
MFA_WEBAUTHN_ALLOW_INSECURE_ORIGIN = not _ALL_HTTPS  # the demo's http://localhost
MFA_WEBAUTHN_USER_VERIFICATION = "required"
SOCIALACCOUNT_ADAPTER = "fleet.accounts.adapters.ProviderAdapter"
SOCIALACCOUNT_EMAIL_AUTHENTICATION = False  # an e-mail address alone lets nobody in
SOCIALACCOUNT_STORE_TOKENS = False
SOCIALACCOUNT_REQUESTS_TIMEOUT = 5  # seconds
SOCIALACCOUNT_LOGIN_ON_GET = False

LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("fr-ca", "Français (Canada)")]
LOCALE_PATHS = [BASE_DIR / "fleet" / "locale"]
USE_I18N = True
USE_TZ = True
TIME_ZONE = "UTC"

STATIC_URL = "/static/"
STATICFILES_DIRS = (
    [BASE_DIR / "fleet" / "static"] if (BASE_DIR / "fleet" / "static").exists() else []
)
# Straight from the source tree, so that nothing must be collected before the first page.
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = DEBUG
WHITENOISE_MAX_AGE = 3600

CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels.layers.InMemoryChannelLayer",
        "CONFIG": {"capacity": 200, "expiry": 10},
    }
}

# --- what a browser is told ------------------------------------------------------------------
# 'self' in connect-src covers the same origin's websockets; older browsers want them named.
_WEBSOCKETS = [origin.replace("http", "ws", 1) for origin in PATENCY_ORIGINS]
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'none'"],
        "script-src": ["'self'"],
        "style-src": ["'self'"],
        "img-src": ["'self'", "data:"],  # icons inside Tabler's style sheet
        "font-src": ["'self'"],
        "connect-src": ["'self'", *_WEBSOCKETS],
        "manifest-src": ["'self'"],
        # The button that opens a session in the browser leads there.
        "form-action": ["'self'", *([PATENCY_ACCESS_ORIGIN] if PATENCY_ACCESS_ORIGIN else [])],
        "frame-ancestors": ["'none'"],
        "base-uri": ["'none'"],
        "object-src": ["'none'"],
    }
}
X_FRAME_OPTIONS = "DENY"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
SECURE_HSTS_SECONDS = 31_536_000 if _ALL_HTTPS else 0
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = _ALL_HTTPS
SESSION_COOKIE_AGE = 12 * 3600  # a working day
SESSION_COOKIE_NAME = "patency_session"
CSRF_FAILURE_VIEW = "fleet.pages.errors.csrf_failure"
CSRF_COOKIE_HTTPONLY = False  # htmx sends it as a header
CSRF_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_SECURE = _ALL_HTTPS
LANGUAGE_COOKIE_SAMESITE = "Lax"
LANGUAGE_COOKIE_SECURE = _ALL_HTTPS
DATA_UPLOAD_MAX_MEMORY_SIZE = 1024 * 1024  # bytes of a request's body
DATA_UPLOAD_MAX_NUMBER_FIELDS = 500
# Whether TLS is used is the deployment's decision, told through PATENCY_ORIGINS.
SILENCED_SYSTEM_CHECKS = ["security.W004", "security.W008"]

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "fleet.accounts.authentication.TokenAuthentication",
        "fleet.accounts.authentication.BrowserAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["fleet.core.parsing.BoundedJSONParser"],
    "DEFAULT_PAGINATION_CLASS": "fleet.core.pagination.Pages",
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "fleet.core.api.exception_handler",
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Patency",
    "VERSION": "1",
    "DESCRIPTION": "Remote service for connected contrast injectors.",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],  # it describes, it shows nothing
    "ENUM_ADD_EXPLICIT_BLANK_NULL_CHOICE": False,
    "ENUM_NAME_OVERRIDES": {
        "ClinicalStateEnum": [(state.value, state.value) for state in ClinicalState],
        "SessionStateEnum": [(state.value, state.value) for state in SessionState],
        "ExecutionStateEnum": [(state.value, state.value) for state in ExecutionState],
        "JobKindEnum": [(kind.value, kind.value) for kind in JobKind],
    },
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "filters": {"strangers": {"()": "fleet.core.logs.StrangersFilter"}},
    "handlers": {
        "stderr": {
            "class": "logging.StreamHandler",
            "formatter": "line",
            "filters": ["strangers"],
        }
    },
    "root": {"handlers": ["stderr"], "level": _level("WARNING")},
    "loggers": {
        "fleet": {"level": _level("INFO")},
        "django.request": {"level": "ERROR"},
    },
}
