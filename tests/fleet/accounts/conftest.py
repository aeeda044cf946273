"""A page reader, borrowed from where every page is read."""

# pytest finds fixtures by name in this module.
from tests.fleet.pages.conftest import read as read
