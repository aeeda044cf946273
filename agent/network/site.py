"""What the site sets about its network, as the running agent holds it.

network        {}                                  what is set; the password is not shown
network-set    {proxy?, user?, password?, up_bytes_s?}   what is named is set, null clears it
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.control import Args, Control
from agent.errors import ControlError, StateError
from agent.network import settings
from agent.network.settings import Settings


class Site:
    """`changed` is called once other settings are on the disk. They may change before enrolment."""

    def __init__(self, state: Path, control: Control, changed: Callable[[], None]) -> None:
        self.settings = Settings()
        self._state = state
        self._changed = changed
        control.register("network", lambda args: self.settings.shown())
        control.register("network-set", self._set)

    def open(self) -> None:
        """Read what is set. Raises StateError."""
        self.settings = settings.load(self._state)

    def _set(self, args: Args) -> dict[str, Any]:
        try:
            new = settings.changed(self.settings, args)
            settings.save(self._state, new)
        except StateError as error:
            raise ControlError("network", str(error)) from error
        self.settings = new
        self._changed()
        return new.shown()
