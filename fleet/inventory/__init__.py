"""Devices, sites, product lines, who owns what."""
