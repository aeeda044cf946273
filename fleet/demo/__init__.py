"""The demo: two hospitals, twelve simulated injectors, all on this machine (`manage.py up --demo`).

plan.json     what there is          people       users, keys, the signed roster
injectors     state directories      processes    the children
running       the whole of it, beside the server
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fleet.mqtt.options import ServeOptions
    from fleet.mqtt.server import Companion


def companion(options: "ServeOptions") -> "Companion":
    """Seed the data directory; the rest runs beside the server. Raises PortalError."""
    from fleet.demo import running  # models: not before the apps are loaded

    return running.prepare(options)
