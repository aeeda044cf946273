from django.apps import AppConfig


class EnrolmentConfig(AppConfig):
    name = "fleet.enrolment"
    label = "enrolment"

    def ready(self) -> None:
        from fleet.enrolment import credentials
        from fleet.inventory.departures import when_leaving

        when_leaving(credentials.leaving)
