"""What runs inside a replica's process, without Ray: who is served by which thread, and what is freed when."""

import asyncio
import pickle
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from tiny import tiny_engine

from nad.engines.cluster import replica as module
from nad.engines.cluster.replica import Replica
from nad.errors import NadError, UsageError
from nad.neurons.activation import ActivationRule
from nad.stopping import At, Never, Progress, StopRule
from nad.types import Group, SamplingParams

RULE = ActivationRule(k=30, per_layer=16)
PARAMS = SamplingParams(max_tokens=12, seed=4)


def replica_of(engine: Any) -> Replica:
    found = Replica()
    found._engine = engine
    return found


def test_a_rollout_told_in_pieces_is_the_rollout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLICE_S", 0.0)
    engine = tiny_engine(eos=263)
    prompt = engine.encode("one two", raw=True)

    async def told(served: Replica) -> tuple[list[int], list[int], Group]:
        await served.start("me", "key", prompt, 4, PARAMS, RULE, True)
        positions, tokens = list[int](), list[int]()
        stop: StopRule | None = At(5)
        while True:
            step = await served.advance("me", "key", stop)
            stop = None
            if step.progress is not None:
                positions.append(step.progress.position)
                tokens += step.tokens[2]
            if step.over:
                group: Group = pickle.loads(await served.group("me", "key"))
                await served.close("me", "key")
                return positions, tokens, group

    positions, tokens, group = asyncio.run(told(replica_of(engine)))
    with engine.start(prompt, 4, PARAMS, RULE, True) as rollout:  # it would wait if the other were still open
        for _ in rollout.until(At(5)):
            pass
        expected = rollout.group()
    assert positions == [1, 2, 3, 4, 5]
    assert tuple(tokens) == expected.completions[2].tokens
    for ours, theirs in zip(group.completions, expected.completions, strict=True):
        assert ours.tokens == theirs.tokens and ours.activations is not None and theirs.activations is not None
        assert ours.activations.neuron.tolist() == theirs.activations.neuron.tolist()
        assert ours.activations.neuron.flags.writeable


class Slow:
    """An engine whose rollouts take their time, and which notes who calls from where."""

    rollouts = 9

    def __init__(self) -> None:
        self.threads: dict[str, int] = {}
        self.calls: list[str] = []

    def start(self, prompt: Any, *rest: Any) -> "Slow":
        self.threads["start"] = threading.get_ident()
        return self

    def until(self, stop: StopRule) -> Iterator[Progress]:
        self.threads["until"] = threading.get_ident()
        time.sleep(0.2)
        self.calls.append("until")
        yield Progress(1, 1, 1, 1, 1, 1, {0: [5]})

    def group(self) -> Group:
        raise NotImplementedError

    def __enter__(self) -> "Slow":
        return self

    def keep(self, samples: Any, capture: bool = True) -> None:
        raise UsageError("no such sample")

    def __exit__(self, *error: Any) -> None:
        self.threads["close"] = threading.get_ident()
        self.calls.append("close")


def started(work: Callable[[Replica, Slow], Awaitable[None]]) -> Slow:
    engine = Slow()
    served = replica_of(engine)

    async def run() -> None:
        await served.start("me", "a", (1,), 1, PARAMS, None, False)
        await work(served, engine)
        assert not served._threads and not served._open, "nothing is left of the caller"

    asyncio.run(run())
    return engine


def test_a_caller_has_one_thread_and_what_it_sends_is_done_in_order() -> None:
    async def work(served: Replica, engine: Slow) -> None:
        going = asyncio.create_task(served.advance("me", "a", Never()))
        await asyncio.sleep(0.05)
        await served.close("me", "a")  # Ctrl-C: what goes on ends first
        await going

    engine = started(work)
    assert engine.calls == ["until", "close"]
    assert len(set(engine.threads.values())) == 1


def test_callers_do_not_wait_for_each_other() -> None:
    async def work(served: Replica, engine: Slow) -> None:
        going = asyncio.create_task(served.advance("me", "a", Never()))
        await asyncio.sleep(0.05)
        await served.start("you", "b", (1,), 1, PARAMS, None, False)
        assert not engine.calls and len(served._threads) == 2
        await served.close("you", "b")
        await going
        await served.close("me", "a")

    started(work)


def test_errors_come_back_and_leave_the_rollout_open() -> None:
    async def work(served: Replica, engine: Slow) -> None:
        with pytest.raises(UsageError, match="no such sample"):
            await served.keep("me", "a", [9], True)
        await served.close("me", "a")
        await served.close("me", "a")

    assert started(work).calls == ["close"]


def test_a_rollout_that_does_not_begin_is_not_open() -> None:
    engine = tiny_engine()
    served = replica_of(engine)

    async def run() -> None:
        with pytest.raises(UsageError, match="n must be at least 1"):
            await served.start("me", "a", (1,), 0, PARAMS, None, False)
        assert not served._open and not served._threads
        await served.close("me", "a")

    asyncio.run(run())


def test_an_engine_without_a_tokenizer_to_send_is_refused(tmp_path: Any) -> None:
    class Mute:
        kind = "mute"

    served = Replica()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nad.engines.load_engine", lambda *_, **__: Mute())
        with pytest.raises(NadError, match="the mute engine cannot be replicated; --replicas takes transformers and"):
            served._load(None, "mute", {})
