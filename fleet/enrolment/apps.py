from django.apps import AppConfig


class EnrolmentConfig(AppConfig):
    name = "fleet.enrolment"
    label = "enrolment"
