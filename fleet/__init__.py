"""The portal: one Django app per noun."""
