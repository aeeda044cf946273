"""How an unknown device gets a known identity."""
