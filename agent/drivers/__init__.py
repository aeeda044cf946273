"""Drivers: one module per product line. `load` finds the one that a state directory names."""

from agent.drivers.base import Driver, DriverError, DriverEvent, Fault, Service
from agent.drivers.loading import load

__all__ = ["Driver", "DriverError", "DriverEvent", "Fault", "Service", "load"]
