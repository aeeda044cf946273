"""Ports to what lies below and beside the portal: the gate and the live pages.

Services call these; the server process installs what carries them out (fleet.mqtt.server). Until
then they drop what they are given: brokers are pipes, and whatever matters is in the database and
is sent again when the device connects. All are safe to call from any thread.
"""

import logging
from collections.abc import Callable
from typing import Any

from django.db import transaction

from agent.wire.messages import Message
from broker.denied import DenyList

Sender = Callable[[str, Message], None]
Kicker = Callable[[str], None]
Denier = Callable[[DenyList], None]
Hinter = Callable[[str, dict[str, Any]], None]
FrameSender = Callable[[str, bytes], bool]

log = logging.getLogger(__name__)


def _drop(*args: object) -> None:
    return None


def _drop_frame(device: str, frame: bytes) -> bool:
    return False


_sender: Sender = _drop
_kicker: Kicker = _drop
_denier: Denier = _drop
_hinter: Hinter = _drop
_frame_sender: FrameSender = _drop_frame


def set_sender(sender: Sender | None) -> None:
    """Install what carries messages to devices; None puts the default back."""
    global _sender
    _sender = sender or _drop


def set_kicker(kicker: Kicker | None) -> None:
    global _kicker
    _kicker = kicker or _drop


def set_denier(denier: Denier | None) -> None:
    global _denier
    _denier = denier or _drop


def set_hinter(hinter: Hinter | None) -> None:
    global _hinter
    _hinter = hinter or _drop


def set_frame_sender(sender: FrameSender | None) -> None:
    global _frame_sender
    _frame_sender = sender or _drop_frame


def send_down(device_id: str, message: Message) -> None:
    """Send to the device's connection once the transaction has committed; fire and forget."""
    # Robust: one broken pipe must not keep the other callbacks of the commit from running.
    transaction.on_commit(lambda: _sender(device_id, message), robust=True)


def kick(device_id: str) -> None:
    """Close the device's connection once the transaction has committed."""
    transaction.on_commit(lambda: _kicker(device_id), robust=True)


def deny(denied: DenyList) -> None:
    """Have every gate refuse these from now on, and cut those that are connected; at once, since
    the list says what is committed."""
    _denier(denied)


def hint(group: str, payload: dict[str, Any]) -> None:
    """Tell the live pages that watch `group`, once the transaction has committed.

    Groups: `device.<id>`, `session.<id>`, `execution.<id>`, `organisation.<id>`, `fleet`.
    """
    transaction.on_commit(lambda: _hinter(group, payload), robust=True)


def hint_now(group: str, payload: dict[str, Any]) -> None:
    """Tell the live pages at once: for what is never stored, such as live samples."""
    _hinter(group, payload)


def send_frame(device_id: str, frame: bytes) -> bool:
    """Hand a stream frame to the device's connection. False when there is none, or it is full."""
    return _frame_sender(device_id, frame)
