"""The way through a hospital's network."""
