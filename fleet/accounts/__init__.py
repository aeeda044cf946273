"""People, their organisations, and the one door for permission."""
