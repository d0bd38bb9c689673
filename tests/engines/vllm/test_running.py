"""Whose vLLM it is, and how its loop and its requests end; no vLLM is needed."""

import asyncio
import multiprocessing
import queue
import shutil
import signal
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nad.engines.vllm.arguments import WORKER
from nad.engines.vllm.loop import EventLoop
from nad.engines.vllm.rollout import Piece, deliver
from nad.engines.vllm.running import Running, adopted, shut_down
from nad.errors import NadError, UsageError


def vllm(refusal: str = "", worker: str = WORKER, parallel: dict[str, Any] | None = None, **config: Any) -> Any:
    """What stands for an AsyncLLM."""

    async def collective_rpc(name: str, args: tuple[str]) -> list[dict[str, Any]]:
        return [{"refusal": refusal, "asked": (name, args[0])}]

    found = {"speculative_config": None, "lora_config": None, **config}
    config_of = SimpleNamespace(parallel_config=SimpleNamespace(worker_cls=worker, **parallel or {}), **found)
    return SimpleNamespace(vllm_config=config_of, collective_rpc=collective_rpc)


def test_a_vllm_of_somebody_else_is_taken_as_it_runs_and_given_a_word_of_its_own() -> None:
    async def take() -> tuple[Running, Running]:
        llm = vllm(parallel={"data_parallel_size": 1, "enable_dbo": False})
        return await adopted(llm), await adopted(llm)

    one, other = asyncio.run(take())
    assert one.about["asked"] == ("nad_about", one.word)
    assert one.word != other.word
    assert len(one.word) > 32


@pytest.mark.parametrize(
    ("llm", "message"),
    [
        (vllm(worker="auto"), "without the capture of neurons; start it with: vllm serve --worker-cls nad.engines"),
        (vllm(speculative_config=object()), "--speculative-config is refused: speculative decoding"),
        (vllm(lora_config=object()), "--enable-lora is refused"),
        (vllm(parallel={"data_parallel_size": 2}), "--data-parallel-size is refused"),
        (vllm(parallel={"enable_dbo": True}), "--enable-dbo is refused"),
        (vllm(refusal="Tiny is a mixture of experts"), "Tiny is a mixture of experts"),
    ],
)
def test_a_vllm_whose_neurons_cannot_be_read_is_refused(llm: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        asyncio.run(adopted(llm))


def test_what_reads_the_output_has_ended_when_the_processes_end() -> None:
    loop, seen = EventLoop(), []

    async def start() -> "asyncio.Task[None]":
        return asyncio.create_task(asyncio.sleep(3600))

    task = loop.run(start())
    shut_down(SimpleNamespace(output_handler=task, shutdown=lambda: seen.append(task.cancelled())), loop)
    assert seen == [True]


def test_a_loop_that_is_closed_says_so_to_those_who_wait_and_those_who_come() -> None:
    loop, told = EventLoop(), []
    begun = threading.Event()

    async def forever() -> None:
        begun.set()
        await asyncio.sleep(3600)

    def wait() -> None:
        try:
            loop.run(forever())
        except NadError as error:
            told.append(str(error))

    thread = threading.Thread(target=wait)
    thread.start()
    assert begun.wait(10)
    loop.close()
    thread.join(10)
    with pytest.raises(NadError, match="the engine was closed"):
        loop.run(asyncio.sleep(0))
    loop.begin(asyncio.sleep(0))
    assert told == ["the engine was closed"]


def test_processes_started_in_a_loop_do_not_hear_a_terminals_ctrl_c(tmp_path: Path) -> None:
    async def start() -> None:
        for name in ("first", "second"):
            process = multiprocessing.get_context("spawn").Process(
                target=shutil.copyfile, args=("/proc/self/status", tmp_path / name)
            )
            process.start()
            process.join()

    loop = EventLoop()
    loop.run(start())
    loop.close()
    for name in ("first", "second"):
        status = dict(line.split(":", 1) for line in (tmp_path / name).read_text().splitlines())
        blocked = int(status["SigBlk"], 16)
        assert blocked >> (signal.SIGINT - 1) & 1
        assert not blocked >> (signal.SIGTERM - 1) & 1
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


async def said(*outputs: tuple[list[int], str | None]) -> AsyncIterator[Any]:
    for tokens, reason in outputs:
        found = SimpleNamespace(token_ids=tokens, finish_reason=reason)
        yield SimpleNamespace(outputs=[found], finished=reason is not None)
    await asyncio.sleep(3600)


def pieces(work: Callable[[Callable[[Piece], None]], Any]) -> list[Piece]:
    found: queue.SimpleQueue[Piece] = queue.SimpleQueue()
    asyncio.run(work(found.put))
    return [found.get() for _ in range(found.qsize())]


def test_a_request_that_vllm_ends_early_is_a_failure_not_an_answer() -> None:
    first, last = pieces(lambda put: deliver(said(([5], None), ([6], "abort")), 3, put))
    assert first == Piece(3, (5,))
    assert last.reason is None
    assert str(last.error) == "it was ended early (abort)"


def test_a_sample_that_is_cancelled_lets_nobody_wait_for_it() -> None:
    async def cancelled(put: Callable[[Piece], None]) -> None:
        task = asyncio.create_task(deliver(said(([5], None)), 0, put))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    _, last = pieces(cancelled)
    assert str(last.error) == "the engine was closed"
