"""What the site sets about its network, as the running agent holds it.

network        {}                                  what is set; the password is not shown
network-set    {proxy?, user?, password?, up_bytes_s?}   what is named is set, null clears it
"""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agent import control, posix
from agent.control import Args, Control
from agent.errors import ControlError, NotRunning, StateError
from agent.network import settings
from agent.network.settings import Settings

log = logging.getLogger(__name__)


class Site:
    """`changed` is called once other settings are on the disk. They may change before enrolment."""

    def __init__(self, state: Path, control: Control, changed: Callable[[], None]) -> None:
        self.settings = Settings()
        self.lost = False  # what was set is not known any more
        self._state = state
        self._changed = changed
        control.register("network", lambda args: self.settings.shown())
        control.register("network-set", self._set)

    def open(self) -> None:
        """Read what is set."""
        self.settings, self.lost = settings.read(self._state)
        if self.lost:
            log.error("%s", settings.lost())

    def _set(self, args: Args) -> dict[str, Any]:
        try:
            new = settings.changed(self.settings, args)
            settings.save(self._state, new)
        except StateError as error:
            raise ControlError("network", str(error)) from error
        self.settings, self.lost = new, False
        self._changed()
        return new.shown()


def change(state: Path, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Set what is named, if anything, and give what is set then; for the command line.

    Through the agent where one runs, so that it goes by it at once; else in its file. Raises
    StateError, ControlError.
    """
    settings.changed(Settings(), wanted)  # what cannot be set is said in the language of who asks
    try:
        return control.call(state, "network-set" if wanted else "network", **wanted)
    except NotRunning:
        posix.check_private_dir(state)
        new = settings.changed(settings.load(state), wanted)
        if wanted:
            settings.save(state, new)
        return new.shown()
