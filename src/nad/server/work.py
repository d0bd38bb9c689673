"""One bounded queue in front of the threads that run the model."""

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Generic, TypeVar

from nad.decoding import Event, Request
from nad.errors import NadError, NoChoice, UsageError
from nad.server.outbox import Outbox
from nad.server.refusals import Refusal, last_resort, shutting_down

_log = logging.getLogger("nad.server")
T = TypeVar("T")

_LONGEST_RETRY_S = 60
"""The official client waits no longer than this for a Retry-After."""


class Job(Generic[T]):
    """One request on its way: it waits, runs in one thread from start to end, and reports to its outbox.

    `convert` makes messages of each event, in that thread. Created and read on the event loop.
    """

    def __init__(
        self,
        request: Request,
        convert: Callable[[Event], Iterable[T]],
        join: Callable[[T, T], T | None],
    ) -> None:
        self.request, self._convert = request, convert
        self.outbox: Outbox[T] = Outbox(join)
        self.arrived, self.begun = time.monotonic(), math.nan
        self.limit: asyncio.TimerHandle | None = None
        self._over = threading.Event()

    def run(self, decode: Callable[[Request], Iterator[Event]]) -> None:
        """Decode until the end, or until nobody wants it any more: then the rollout is closed at the next event."""
        self.begun = time.monotonic()
        try:
            with closing(decode(self.request)) as events:  # type: ignore[type-var]
                for event in events:
                    if self._over.is_set():
                        return
                    for message in self._convert(event):
                        self.outbox.put(message)
            self.outbox.close()
        except Exception as error:
            self.outbox.close(_refusal(error))

    def end(self, error: Refusal | None = None) -> None:
        """Nobody waits for it any more, or `error` says why it is given up. From any thread."""
        self._over.set()
        self.outbox.close(error)


def _refusal(error: Exception) -> Refusal:
    """What a client is told of a failure in the library."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, NoChoice):
        return Refusal(
            422, "no answer was chosen: the votes are tied or missing; ask for a larger nad.n", code="no_choice"
        )
    if isinstance(error, UsageError):
        return Refusal(400, str(error), code="invalid_value")
    _log.error("a request failed: %s", error, exc_info=None if isinstance(error, NadError) else error)
    return last_resort()


class Work:
    """`workers` threads, and at most `waiting` jobs before them, first come, first served."""

    def __init__(self, decode: Callable[[Request], Iterator[Event]], workers: int, waiting: int) -> None:
        self._decode, self._most = decode, workers + waiting
        self._workers = workers
        self._waiting: deque[Job] = deque()
        self._running: set[Job] = set()
        self._changed = threading.Condition()
        self._open, self._ended = True, False
        self._mean_s = 1.0
        self._threads = [
            threading.Thread(target=self._work, name=f"nad-worker-{i}", daemon=True) for i in range(workers)
        ]

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def open(self) -> bool:
        """Whether new jobs are taken."""
        return self._open

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> None:
        """Queue a job. Raises Refusal when the queue is full, or the server is shutting down."""
        with self._changed:
            if not self._open:
                raise shutting_down()
            if len(self._waiting) + len(self._running) >= self._most:
                raise self._full()
            self._waiting.append(job)
            self._changed.notify()

    def give_up(self, job: Job, error: Refusal | None = None) -> None:
        """Drop a job that waits; one that runs ends at its next event. For one that has ended it does nothing."""
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)
        job.end(error)

    def drain(self) -> None:
        """Take no more jobs, refuse those that wait, let those that run go on."""
        with self._changed:
            self._open = False
            waiting, self._waiting = list(self._waiting), deque()
        for job in waiting:
            job.end(shutting_down())

    def finish(self, seconds: float) -> None:
        """Refuse what waits, give what runs so long, and then `stop`."""
        self.drain()
        with self._changed:
            self._changed.wait_for(lambda: not self._running, seconds)
        self.stop()

    def stop(self) -> None:
        """End what still runs, and the threads."""
        self.drain()
        with self._changed:
            self._ended = True
            running = list(self._running)
            self._changed.notify_all()
        for job in running:
            job.end(shutting_down())

    def join(self, seconds: float) -> None:
        """Wait for the threads after `stop`."""
        until = time.monotonic() + seconds
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, until - time.monotonic()))

    def _full(self) -> Refusal:
        ahead = 1 + len(self._waiting) / self._workers
        seconds = min(_LONGEST_RETRY_S, max(1, math.ceil(ahead * self._mean_s)))
        return Refusal(
            429,
            f"the queue is full; try again in {seconds} seconds",
            code="queue_full",
            headers={"Retry-After": str(seconds)},
        )

    def _work(self) -> None:
        while (job := self._next()) is not None:
            job.run(self._decode)
            self._done(job)

    def _next(self) -> Job | None:
        with self._changed:
            while not self._waiting and not self._ended:
                self._changed.wait()
            if self._ended:
                return None
            job = self._waiting.popleft()
            self._running.add(job)
            return job

    def _done(self, job: Job) -> None:
        with self._changed:
            self._running.discard(job)
            self._changed.notify_all()
            self._mean_s += 0.2 * (time.monotonic() - job.begun - self._mean_s)
