"""`patency-agent doctor`."""
