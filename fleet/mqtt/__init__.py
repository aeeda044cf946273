"""The portal's ports to the broker: ingest, presence, ticks, the server process."""
