"""Which injectors `devices` and `watch` are about."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from fleet.client.errors import ClientError, Exit
from fleet.client.i18n import _
from fleet.client.portal import JSON, Declined, Portal


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The argument and options that make up `Filters`."""
    for option in (
        click.argument("q", required=False),
        click.option("--product-line", help="Only this product line, as ct-dual."),
        click.option("--site", help="Only this site: its id, or its name."),
        click.option("--state", help="Only in this clinical state, as idle."),
        click.option("--online", is_flag=True, help="Only those online."),
        click.option("--offline", is_flag=True, help="Only those offline."),
    ):
        command = option(command)
    return command


@dataclass(frozen=True)
class Filters:
    q: str | None
    product_line: str | None
    site: str | None
    state: str | None
    online: bool
    offline: bool

    def __post_init__(self) -> None:
        if self.online and self.offline:
            raise ClientError(
                _("Either --online or --offline: no injector is both. Leave both out for all."),
                Exit.USAGE,
            )

    def find(self, portal: Portal) -> list[JSON]:
        """The injectors. Raises Declined for a product line, site or state that is none."""
        try:
            return portal.devices(self._query(self.site))
        except Declined:
            if self.site is None:
                raise
            name = self.site.casefold()  # no id of a site: its name, perhaps
            every = portal.devices(self._query(None))
            if name not in {str(it["site"]).casefold() for it in portal.devices({})}:
                raise
            return [it for it in every if str(it["site"]).casefold() == name]

    def _query(self, site: str | None) -> dict[str, str | None]:
        return {
            "q": self.q,
            "product_line": self.product_line,
            "site": site,
            "state": self.state,
            "online": str(self.online).lower() if self.online or self.offline else None,
        }
