"""The bridge from a worker thread to the event loop."""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Outbox(Generic[T]):
    """Messages of one worker thread to one reader on the event loop, in order.

    The thread never waits for a slow reader: that would hold the model for one client. What it holds is bounded all the
    same, because `join` makes one message of the last that waits and the new one wherever it can (None: it cannot).
    """

    def __init__(self, join: Callable[[T, T], T | None]) -> None:
        self._join, self._loop = join, asyncio.get_running_loop()
        self._messages: deque[T] = deque()
        self._closed = False
        self._error: BaseException | None = None
        self._lock, self._news = threading.Lock(), asyncio.Event()

    def put(self, message: T) -> None:
        """From the thread."""
        with self._lock:
            if self._closed:
                return
            joined = self._join(self._messages[-1], message) if self._messages else None
            if joined is not None:
                self._messages[-1] = joined
                return
            self._messages.append(message)
        self._wake()

    def close(self, error: BaseException | None = None) -> None:
        """No more messages; the reader gets those that wait, then `error`. From any thread; the first call counts."""
        with self._lock:
            if self._closed:
                return
            self._closed, self._error = True, error
        self._wake()

    def _wake(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._news.set)

    async def read(self, every: float) -> AsyncIterator[T | None]:
        """The messages as they come, and None after each `every` seconds without one. Raises the error it ends with."""
        while True:
            with self._lock:
                message = self._messages.popleft() if self._messages else None
                over = message is None and self._closed
                if message is None:
                    self._news.clear()
            if over:
                break
            if message is not None:
                yield message
            elif not await self._came(every):
                yield None
        if self._error is not None:
            raise self._error

    async def _came(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return False
        return True
