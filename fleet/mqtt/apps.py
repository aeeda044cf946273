from django.apps import AppConfig


class MqttConfig(AppConfig):
    name = "fleet.mqtt"
    label = "mqtt"
