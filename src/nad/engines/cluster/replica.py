"""A replica, in a process of its own: an engine, and the rollouts open on it. Ray makes an actor of it."""

import asyncio
import os
import pickle
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from nad.engines.base import Rollout
from nad.engines.cluster.ray_cluster import own_cores
from nad.engines.cluster.shares import Share, cores_of
from nad.engines.texts import Texts
from nad.errors import UsageError
from nad.neurons.activation import ActivationRule
from nad.stopping import Progress, StopRule
from nad.types import SamplingParams

T = TypeVar("T")

SLICE_S = 0.1
"""How long a rollout goes on before its client hears of it."""


@dataclass(frozen=True)
class About:
    """An engine's properties (those of Engine), and its tokenizer."""

    name: str
    kind: str
    revision: str | None
    dtype: str
    layers: int
    neurons: int
    experts: int
    notes: tuple[str, ...]
    weights_digest: str | None
    eos: frozenset[int]
    rollouts: int
    context_window: int | None
    texts: Texts

    @property
    def model(self) -> tuple[object, ...]:
        """What must be the same in all replicas for a sample not to depend on who draws it."""
        return (self.kind, self.dtype, self.layers, self.neurons, self.experts, self.weights_digest, self.eos)


@dataclass(frozen=True)
class Advance:
    """How far a rollout came: its position (None: no further), its samples' new tokens, and whether `until` is over."""

    progress: Progress | None
    tokens: Mapping[int, Sequence[int]]
    over: bool


@dataclass
class _Open:
    """A rollout of one caller; `positions` is what `until` yields, `sent` the tokens of each sample the caller has."""

    rollout: Rollout
    caller: str
    positions: Iterator[Progress] = field(default_factory=lambda: iter(()))
    sent: dict[int, int] = field(default_factory=dict)


class Replica:
    """Calls come from many threads of the client. Each of these has a thread here, as long as it has a rollout open:
    engines tell by it who waits for whom, and calls about a rollout are made one after the other.

    What is large travels pickled: Ray would hand out arrays inside its own memory, which ends with the connection.
    """

    def __init__(self) -> None:
        self._engine: Any = None
        """An Engine, once it is loaded."""
        self._open: dict[str, _Open] = {}
        self._threads: dict[str, ThreadPoolExecutor] = {}
        self._said: tuple[str, float | None] = ("", None)

    async def where(self) -> str:
        """The machine it runs on, as Ray names it."""
        import ray

        return str(ray.get_runtime_context().get_node_id())

    async def process(self) -> int:
        """Its process on that machine."""
        return os.getpid()

    async def load(self, model: str | None, engine: str, options: Mapping[str, Any], place: int, share: Share) -> bytes:
        """Load the engine, as the replica at this place of its machine. Returns its About."""
        for name, value in (("TQDM_DISABLE", "1"), ("TOKENIZERS_PARALLELISM", "false")):
            os.environ.setdefault(name, value)
        if (cores := cores_of(place, share, own_cores())) and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, cores)  # of this thread, and of all that it starts
        return await asyncio.to_thread(self._load, model, engine, options)

    def _load(self, model: str | None, engine: str, options: Mapping[str, Any]) -> bytes:
        from nad.engines import load_engine

        loaded = self._engine = load_engine(model, engine, **options, report=self._hear)
        texts = getattr(loaded, "texts", None)
        if not isinstance(texts, Texts):
            raise UsageError(f"the {engine} engine cannot be replicated; --replicas takes transformers and vllm")
        named = {name: getattr(loaded, name) for name in About.__dataclass_fields__ if hasattr(loaded, name)}
        return pickle.dumps(About(**{"context_window": None, **named, "texts": texts}))

    def _hear(self, text: str, share: float | None = None, /) -> None:
        self._said = (text, share)

    async def said(self) -> tuple[str, float | None]:
        """What loading reported last."""
        return self._said

    async def start(
        self,
        caller: str,
        key: str,
        prompt: tuple[int, ...],
        n: int,
        params: SamplingParams,
        rule: ActivationRule | None,
        signals: bool,
    ) -> None:
        """Open the rollout that `key` names from now on."""

        def start() -> None:
            rollout = self._engine.start(prompt, n, params, rule, signals)
            self._open[key] = _Open(rollout, caller, sent=dict.fromkeys(range(n), 0))

        await self._served(caller, start)

    async def advance(self, caller: str, key: str, stop: StopRule | None) -> Advance:
        """Go on for a while: to `stop`, or (None) to the stop of the call before."""
        return await self._served(caller, lambda: _advanced(self._open[key], stop))

    async def group(self, caller: str, key: str) -> bytes:
        return await self._served(caller, lambda: pickle.dumps(self._open[key].rollout.group()))

    async def keep(self, caller: str, key: str, samples: Sequence[int], capture: bool) -> None:
        await self._served(caller, lambda: self._open[key].rollout.keep(samples, capture))

    async def close(self, caller: str, key: str) -> None:
        """Free the rollout, once what it does now has ended. One that was not opened, or is closed, is left alone."""

        def close() -> None:
            if opened := self._open.pop(key, None):
                opened.rollout.__exit__(None, None, None)

        await self._served(caller, close)

    async def score(
        self,
        caller: str,
        prompt: tuple[int, ...],
        completion: tuple[int, ...],
        rule: ActivationRule,
        signals: bool,
    ) -> bytes:
        return await self._served(caller, lambda: pickle.dumps(self._engine.score(prompt, completion, rule, signals)))

    async def end(self) -> None:
        """Free what the engine holds beyond this process."""
        if self._engine is not None:
            await asyncio.to_thread(self._engine.close)

    async def _served(self, caller: str, work: Callable[[], T]) -> T:
        thread = self._threads.get(caller)
        if thread is None:
            thread = self._threads[caller] = ThreadPoolExecutor(1, "nad-caller")
        try:
            return await asyncio.get_running_loop().run_in_executor(thread, work)
        finally:
            if not any(opened.caller == caller for opened in list(self._open.values())):
                thread.shutdown(wait=False)
                if self._threads.get(caller) is thread:
                    del self._threads[caller]


def _advanced(opened: _Open, stop: StopRule | None) -> Advance:
    if stop is not None:
        opened.positions = iter(opened.rollout.until(stop))
    until, last, over = time.monotonic() + SLICE_S, None, True
    for progress in opened.positions:
        last = progress
        if time.monotonic() >= until:
            over = False
            break
    if last is None:
        return Advance(None, {}, over)
    tokens = {i: tuple(all[opened.sent[i] : last.position]) for i, all in last.tokens.items()}
    opened.sent = {i: opened.sent[i] + len(new) for i, new in tokens.items()}
    return Advance(replace(last, tokens={}), tokens, over)
