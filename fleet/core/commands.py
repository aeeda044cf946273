"""What the portal's own management commands share."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.core.management import CommandError

from fleet.core.errors import PortalError


@contextmanager
def plain_errors() -> Iterator[None]:
    """Show our errors as a line with the remedy, and end with exit code 1."""
    try:
        yield
    except PortalError as error:
        raise CommandError(error.message) from error
