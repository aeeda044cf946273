from django.apps import AppConfig


class TelemetryConfig(AppConfig):
    name = "fleet.telemetry"
    label = "telemetry"

    def ready(self) -> None:
        from fleet.inventory.departures import when_leaving
        from fleet.telemetry import services

        when_leaving(services.leaving)
