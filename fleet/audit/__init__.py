"""Who did what, when, with what outcome: chained, signed, comparable."""
