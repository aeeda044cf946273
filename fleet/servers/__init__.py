"""Access servers: where devices connect, what hospitals must allow, and how each of them is."""
