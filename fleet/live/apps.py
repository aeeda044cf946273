from django.apps import AppConfig


class LiveConfig(AppConfig):
    name = "fleet.live"
    label = "live"

    def ready(self) -> None:
        from fleet.core import ports
        from fleet.live.hinter import hinter

        ports.set_hinter(hinter)
