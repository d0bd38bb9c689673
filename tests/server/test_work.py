"""The queue, its threads, and the bridge to the event loop, with a decoder made by hand."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from nad.decoding import Event, Request, Text
from nad.errors import NadError, NoChoice, UsageError
from nad.server.answers import join_events
from nad.server.outbox import Outbox
from nad.server.refusals import Refusal
from nad.server.work import Job, Work


class Decoder:
    """Yields "a", waits for `go`, yields "b"; notes which prompts begin and are closed."""

    def __init__(self) -> None:
        self.go, self.begun, self.closed = threading.Event(), threading.Event(), threading.Event()
        self.order: list[str] = []
        self.error: Exception | None = None

    def __call__(self, request: Request) -> Iterator[Event]:
        self.order.append(str(request.prompt))
        try:
            yield Text("a")
            self.begun.set()
            assert self.go.wait(10)
            if self.error:
                raise self.error
            yield Text("b")
            yield Text("c", 1)
        finally:
            self.closed.set()


def run(test: Callable[[Decoder, Work], Coroutine[Any, Any, None]], waiting: int = 2) -> None:
    async def with_work() -> None:
        decoder = Decoder()
        work = Work(decoder, 1, waiting)
        work.start()
        try:
            await asyncio.wait_for(test(decoder, work), 10)
        finally:
            decoder.go.set()
            work.stop()
            await asyncio.to_thread(work.join, 5)

    asyncio.run(with_work())


def job(prompt: str = "p") -> Job[Event]:
    return Job(Request(prompt, 1), lambda event: [event], join_events)


async def read(job: Job[Event]) -> list[Event | None]:
    return [message async for message in job.outbox.read(5)]


async def until(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, 5)


def test_events_come_in_order() -> None:
    async def test(decoder: Decoder, work: Work) -> None:
        mine = job()
        work.submit(mine)
        decoder.go.set()
        events = await read(mine)
        assert "".join(e.text for e in events if isinstance(e, Text)) == "abc"
        assert events[-1] == Text("c", 1)

    run(test)


def test_first_come_first_served_and_one_too_many_is_refused() -> None:
    async def test(decoder: Decoder, work: Work) -> None:
        jobs = [job(name) for name in "xyz"]
        for each in jobs:
            work.submit(each)
        await until(decoder.begun)
        assert (work.running, work.waiting) == (1, 2)
        with pytest.raises(Refusal) as full:
            work.submit(job())
        assert (full.value.status_code, full.value.headers) == (429, {"Retry-After": "3"})
        decoder.go.set()
        for each in jobs:
            await read(each)
        assert decoder.order == ["x", "y", "z"]

    run(test)


def test_a_job_nobody_waits_for_leaves_the_queue_at_once_and_is_never_begun() -> None:
    async def test(decoder: Decoder, work: Work) -> None:
        first, second = job("first"), job("second")
        work.submit(first)
        work.submit(second)
        await until(decoder.begun)
        work.give_up(second)
        assert work.waiting == 0
        decoder.go.set()
        await read(first)
        assert decoder.order == ["first"]

    run(test)


def test_a_running_job_is_closed_at_its_next_event() -> None:
    async def test(decoder: Decoder, work: Work) -> None:
        mine, next = job(), job("next")
        work.submit(mine)
        await until(decoder.begun)
        work.submit(next)
        work.give_up(mine)
        assert not decoder.closed.is_set()
        decoder.go.set()
        await until(decoder.closed)
        assert len(await read(next)) > 0

    run(test)


def test_draining_refuses_what_waits_and_lets_what_runs_finish() -> None:
    async def test(decoder: Decoder, work: Work) -> None:
        running, waiting = job(), job()
        work.submit(running)
        work.submit(waiting)
        await until(decoder.begun)
        work.drain()
        with pytest.raises(Refusal) as refused:
            await read(waiting)
        assert refused.value.status_code == 503
        with pytest.raises(Refusal):
            work.submit(job())
        decoder.go.set()
        assert len(await read(running)) > 0

    run(test)


def test_stopping_ends_what_runs() -> None:
    async def test(decoder: Decoder, work: Work) -> None:
        mine = job()
        work.submit(mine)
        await until(decoder.begun)
        work.stop()
        with pytest.raises(Refusal) as stopped:
            await read(mine)
        assert stopped.value.code == "shutting_down"

    run(test)


@pytest.mark.parametrize(
    ("error", "status", "shown"),
    [
        (UsageError("too long"), 400, "too long"),
        (NoChoice("a tie"), 422, "no answer was chosen"),
        (NadError("/home/me/model is broken"), 500, "the server failed"),
        (RuntimeError("/home/me/model is broken"), 500, "the server failed"),
    ],
)
def test_failures_say_only_what_a_client_may_know(error: Exception, status: int, shown: str) -> None:
    async def test(decoder: Decoder, work: Work) -> None:
        mine, next = job(), job("next")
        decoder.error = error
        work.submit(mine)
        decoder.go.set()
        with pytest.raises(Refusal) as refused:
            await read(mine)
        assert refused.value.status_code == status
        assert shown in str(refused.value) and "/home" not in str(refused.value)
        decoder.error = None
        work.submit(next)
        assert len(await read(next)) > 0

    run(test)


def test_a_reader_that_is_behind_gets_texts_joined_and_silence_is_said() -> None:
    async def test() -> None:
        outbox: Outbox[Event] = Outbox(join_events)
        for event in (Text("a"), Text("b"), Text("x", 1), Text("c")):
            outbox.put(event)
        got = []
        async for message in outbox.read(0.01):
            got.append(message)
            if message is None:
                outbox.close()
        assert got == [Text("ab"), Text("x", 1), Text("c"), None]

    asyncio.run(test())


def test_messages_after_the_end_are_dropped_and_the_first_end_counts() -> None:
    async def test() -> None:
        outbox: Outbox[Event] = Outbox(join_events)
        outbox.close()
        outbox.put(Text("a"))
        outbox.close(RuntimeError())
        assert [message async for message in outbox.read(1)] == []

    asyncio.run(test())


def test_finish_lets_what_runs_end_and_refuses_what_waits() -> None:
    async def test(decoder: Decoder, work: Work) -> None:
        first, second = job("first"), job("second")
        work.submit(first)
        work.submit(second)
        assert await asyncio.to_thread(decoder.begun.wait, 5)
        finishing = asyncio.create_task(asyncio.to_thread(work.finish, 5))
        with pytest.raises(Refusal, match="shutting down"):
            await read(second)
        decoder.go.set()
        assert await read(first) == [Text("a"), Text("b"), Text("c", 1)]
        await asyncio.wait_for(finishing, 2)

    run(test)


def test_finish_ends_what_runs_longer() -> None:
    async def test(decoder: Decoder, work: Work) -> None:
        first = job()
        work.submit(first)
        assert await asyncio.to_thread(decoder.begun.wait, 5)
        await asyncio.to_thread(work.finish, 0.05)
        with pytest.raises(Refusal, match="shutting down"):
            await read(first)

    run(test)
