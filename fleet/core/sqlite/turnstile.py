"""A lock that is handed over in the order in which it was asked for."""

import threading
from collections import deque


class Turnstile:
    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._taken = False
        self._waiting: deque[threading.Event] = deque()

    def enter(self, timeout: float) -> bool:
        """Wait for a turn, at most `timeout` seconds. False: none came."""
        with self._guard:
            if not self._taken:
                self._taken = True
                return True
            called = threading.Event()
            self._waiting.append(called)
        if called.wait(timeout):
            return True
        with self._guard:
            if called.is_set():  # called while we gave up
                return True
            self._waiting.remove(called)
            return False

    def leave(self) -> None:
        """End the turn: the next in line has it now."""
        with self._guard:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._taken = False
