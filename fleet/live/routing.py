"""Websockets that Channels serves; the origin and the sign-in are checked around them in asgi."""

from typing import Any

from django.urls import path

from fleet.live.consumers import LiveConsumer

LIVE_PATH = "/ws/live/"
websocket_urlpatterns: list[Any] = [path(LIVE_PATH[1:], LiveConsumer.as_asgi())]
