"""The gate, amqtt behind it, and the transports between them and the portal."""
