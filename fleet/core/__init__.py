"""What every app leans on: the clock, identifiers, errors, ports to what lies below."""
