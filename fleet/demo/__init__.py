"""The demonstration fleet."""
