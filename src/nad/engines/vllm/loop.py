"""The bridge between threads that wait and the event loop vLLM lives in; and the seats its batch has."""

import asyncio
import signal
import threading
from collections import deque
from collections.abc import Coroutine
from concurrent.futures import CancelledError
from multiprocessing import resource_tracker
from typing import Any, TypeVar

from nad.errors import NadError

T = TypeVar("T")
_CLOSED = "the engine was closed"


class Bridge:
    """Into an event loop that runs in another thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result; waits for it, from any thread but the loop's own."""
        if self._loop.is_closed():
            work.close()
            raise NadError(_CLOSED)
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop).result()
        except CancelledError:
            raise NadError(_CLOSED) from None

    def begin(self, work: Coroutine[Any, Any, Any]) -> None:
        """Have the coroutine run, without waiting for it."""
        if self._loop.is_closed():
            work.close()
        else:
            asyncio.run_coroutine_threadsafe(work, self._loop)


class EventLoop(Bridge):
    """A loop in a thread of its own.

    A terminal sends Ctrl-C to every process of a program. Those that are started here do not hear it: the program ends
    them when it ends, and until then they finish what runs.
    """

    def __init__(self) -> None:
        super().__init__(asyncio.new_event_loop())
        self._thread = threading.Thread(target=self._forever, name="nad-vllm", daemon=True)
        self._thread.start()

    def _forever(self) -> None:
        resource_tracker.ensure_running()  # when it starts it takes the mask off, and it would with the first process
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # processes inherit the mask of their thread
        self._loop.run_forever()

    def close(self) -> None:
        if not self._loop.is_closed():
            self.run(_cancel_others())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=5)


class Seats:
    """How many samples may run at once. Those of a rollout start together: samples that wait in vLLM's queue would
    let the others of their rollout run far past the stop position."""

    def __init__(self, seats: int) -> None:
        self.seats, self._free = seats, seats
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()
        self._held: dict[int, int] = {}
        """By thread."""

    def take(self, n: int) -> int:
        """Wait for n seats (or all of them, for a rollout larger than that), first come, first served.

        Returns the holder, to give them back with.
        """
        wanted, me = min(n, self.seats), threading.get_ident()
        with self._changed:
            if self._free < wanted and self._held.get(me, 0):
                raise NadError(
                    f"this thread holds {self._held[me]} of {self.seats} places of the batch and asks for {wanted} "
                    "more; close a rollout first, or raise max_num_seqs (--engine-arg max_num_seqs=N)"
                )
            ticket = object()
            self._waiting.append(ticket)
            try:
                self._changed.wait_for(lambda: self._waiting[0] is ticket and self._free >= wanted)
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()
            self._free -= wanted
            self._held[me] = self._held.get(me, 0) + wanted
            return me

    def give_back(self, holder: int, n: int) -> None:
        with self._changed:
            self._free += n
            self._held[holder] -= n
            if not self._held[holder]:
                del self._held[holder]
            self._changed.notify_all()
