"""The contract between injector, portal and specialist. Pure: bytes in, values out, no IO."""
