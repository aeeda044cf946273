"""The product lines there are: data, in catalogue.json (R-CON-1). The names are their owner's."""

import json
from pathlib import Path

from fleet.inventory.models import ProductLine


def load() -> None:
    """Bring the product lines of the catalogue into the database; what is there is updated."""
    lines = json.loads((Path(__file__).parent / "catalogue.json").read_text(encoding="utf-8"))
    for line in lines:
        ProductLine.objects.update_or_create(
            code=line["code"], defaults={"name": line["name"], "modality": line["modality"]}
        )
