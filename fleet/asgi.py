"""What uvicorn runs: pages and API by Django, live pages by Channels, session streams bare."""

import os
from typing import Any, cast

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fleet.settings")
django.setup()

# Only now: these import models.
from channels.auth import AuthMiddlewareStack  # noqa: E402
from channels.routing import URLRouter  # noqa: E402
from channels.security.websocket import OriginValidator  # noqa: E402
from django.conf import settings  # noqa: E402

from fleet.access.stream import application as stream_application  # noqa: E402
from fleet.core.asgi import Receive, Scope, Send, refuse_websocket  # noqa: E402
from fleet.core.handler import PortalHandler  # noqa: E402
from fleet.live.routing import LIVE_PATH, websocket_urlpatterns  # noqa: E402

django_application = PortalHandler()
# Channels ships no types.
_routes: Any = cast(Any, URLRouter)(websocket_urlpatterns)
live_application: Any = cast(Any, OriginValidator)(
    cast(Any, AuthMiddlewareStack)(_routes), settings.PATENCY_ORIGINS
)


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Route one connection. A websocket that nobody serves is closed with 4404."""
    if scope["type"] == "http":
        await django_application(scope, receive, send)
    elif scope["type"] == "websocket":
        path = scope["path"]
        if path.startswith("/ws/stream/"):
            # Not through Channels: a consumer is ten times slower per byte.
            await stream_application(scope, receive, send)
        elif path == LIVE_PATH:  # Channels' router knows no other and would fail
            await live_application(scope, receive, send)
        else:
            await refuse_websocket(receive, send, 4404)
    # "lifespan": nothing to start or stop here; uvicorn is told not to ask.
