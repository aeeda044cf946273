from django.apps import AppConfig


class AccessConfig(AppConfig):
    name = "fleet.access"
    label = "access"

    def ready(self) -> None:
        from fleet.access import services
        from fleet.inventory.departures import when_leaving

        when_leaving(services.leaving)
