"""Samples, events and what is wrong now."""
