from django.apps import AppConfig


class JobsConfig(AppConfig):
    name = "fleet.jobs"
    label = "jobs"

    def ready(self) -> None:
        from fleet.inventory.departures import when_leaving
        from fleet.jobs import services

        when_leaving(services.leaving)
