"""Several problems at once, a thread each, for engines whose rollouts share a batch."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


class Stopped(Exception):
    """Raised in a thread whose result nobody waits for any more."""


def in_flight(
    make: Callable[[int, Callable[[], None]], T], jobs: Sequence[int], at_once: int
) -> Iterator[tuple[int, T]]:
    """The results of `make(job, check)` for every job, as they are done, with `at_once` jobs under way. The caller gets
    them one at a time; the next job begins when it asks for more.

    `make` calls `check` often, which raises when an error elsewhere, Ctrl-C or a closed iterator has ended the work.
    All threads have ended when this returns or raises. With one at once there are no threads: jobs are made in turn.
    """
    if at_once == 1:
        for job in jobs:
            yield job, make(job, lambda: None)
        return
    over = threading.Event()

    def check() -> None:
        if over.is_set():
            raise Stopped

    with ThreadPoolExecutor(at_once, "nad-problem") as pool:
        todo, running = iter(jobs), dict[Future[T], int]()
        try:
            while True:
                running |= {pool.submit(make, job, check): job for job in _some(todo, at_once - len(running))}
                if not running:
                    return
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(done), done.result()
        finally:
            over.set()


def _some(jobs: Iterator[int], number: int) -> list[int]:
    return list(islice(jobs, number))
