"""Which replica takes the next rollout: one with a free place, and threads wait for it first come, first served."""

import threading
from collections import Counter, deque
from typing import Generic, TypeVar

from nad.errors import NadError

R = TypeVar("R")


class Places(Generic[R]):
    """The free places of every replica that is up."""

    def __init__(self) -> None:
        self._free: dict[R, int] = {}
        self._held: Counter[tuple[int, R]] = Counter()
        """By thread and replica."""
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()
        self._failure: str | None = None

    def open(self, replica: R, places: int) -> None:
        """A replica is up."""
        with self._changed:
            self._free[replica] = places
            self._changed.notify_all()

    def shut(self, replica: R) -> bool:
        """A replica is down, with everything on it; whether it was up before."""
        with self._changed:
            was_up = self._free.pop(replica, None) is not None
            for key in [key for key in self._held if key[1] is replica]:
                del self._held[key]
            return was_up

    def fail(self, why: str) -> None:
        """There will be no more places: whoever waits is told."""
        with self._changed:
            self._failure = why
            self._changed.notify_all()

    def up(self) -> int:
        """How many replicas are up."""
        return len(self._free)

    def take(self) -> tuple[R, int]:
        """Wait for a place on the replica with most free ones; it, and the holder, to give the place back with.

        Raises NadError for a thread that would wait for a place it holds itself, and when there will be none.
        """
        me, ticket = threading.get_ident(), object()
        with self._changed:
            if not self._some_free() and any(thread == me for thread, _ in self._held):
                raise NadError("this thread has rollouts open on these replicas; close one before it starts another")
            self._waiting.append(ticket)
            try:
                self._changed.wait_for(lambda: self._failure or (self._waiting[0] is ticket and self._some_free()))
                if self._failure:
                    raise NadError(self._failure)
                replica = max(self._free, key=lambda r: self._free[r])
                self._free[replica] -= 1
                self._held[me, replica] += 1
                return replica, me
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()

    def give_back(self, replica: R, holder: int) -> None:
        """From any thread. The places of a replica that is down are gone already."""
        with self._changed:
            if replica in self._free:
                self._free[replica] += 1
                self._held[holder, replica] -= 1
                self._held += Counter()  # without the zeros
                self._changed.notify_all()

    def wait(self, seconds: float) -> bool:
        """Wait at most so long for a free place; whether there is one. Raises NadError when there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: self._failure or self._some_free(), seconds)
            if self._failure:
                raise NadError(self._failure)
            return self._some_free()

    def _some_free(self) -> bool:
        return any(self._free.values())
