"""SQLite as Django's database, with a fair turn for the writers of one process."""
