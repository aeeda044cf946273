"""Which injectors `devices` and `watch` are about."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from fleet.client.errors import ClientError, Exit, NotFound
from fleet.client.i18n import _
from fleet.client.portal import JSON, Portal


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
        """The injectors. Raises NotFound for a product line or a site that none of yours has: an
        empty list would hide a slip of the pen."""
        found = portal.devices(self._query(self.site))
        if found or not (self.product_line or self.site):
            return found
        every = portal.devices({})
        lines = sorted({str(it["product_line"]) for it in every})
        if every and self.product_line and self.product_line not in lines:
            raise NotFound(
                _("No injector of yours is of the product line {name}. There are: {known}.").format(
                    name=repr(self.product_line), known=", ".join(lines)
                )
            )
        if every and self.site and not portal.devices({"site": self.site}):
            return self._at(self.site, portal, sorted({str(it["site"]) for it in every}))
        return found

    def _at(self, site: str, portal: Portal, sites: list[str]) -> list[JSON]:
        """Those at the site of this name: no site has it for its id."""
        name = site.casefold()
        if name not in map(str.casefold, sites):
            raise NotFound(
                _("No injector of yours stands at the site {name}. There are: {known}.").format(
                    name=repr(site), known=", ".join(sites)
                )
            )
        return [
            it for it in portal.devices(self._query(None)) if str(it["site"]).casefold() == name
        ]

    def _query(self, site: str | None) -> dict[str, str | None]:
        return {
            "q": self.q,
            "product_line": self.product_line,
            "site": site,
            "state": self.state,
            "online": str(self.online).lower() if self.online or self.offline else None,
        }
