"""Live pages: hints and charts over websockets."""
