"""One rollout at a time: the next one waits."""

import threading
from collections.abc import Callable

from nad.errors import NadError


class Turns:
    """Hands out one turn at a time, across threads. A thread that has the turn cannot wait for itself: it is told."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder: int | None = None

    def take(self) -> Callable[[], None]:
        """Wait for the turn. The returned function gives it back, from any thread; called again it does nothing."""
        me = threading.get_ident()
        if self._holder == me:
            raise NadError("this thread has a rollout open on this engine; close it before it starts another")
        self._lock.acquire()
        self._holder = me
        turn = iter([self._give_back])
        return lambda: next(turn, _nothing)()

    def _give_back(self) -> None:
        self._holder = None
        self._lock.release()


def _nothing() -> None:
    pass
