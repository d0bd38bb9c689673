"""The rollout of the vLLM engine: n requests that run on their own, looked at position by position."""

import asyncio
import queue
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from nad.engines.vllm.captures import Found
from nad.errors import NadError
from nad.neurons.activation import ActivationRule
from nad.prefixes import PrefixTree
from nad.stopping import Progress, StopRule, progress_of
from nad.text_stream import TextStream, cut_at
from nad.types import Completion, Group, SamplingParams, Signals


class Piece(NamedTuple):
    """The next tokens of a sample; `reason` is given with its last. Or why there are no more."""

    sample: int
    tokens: tuple[int, ...]
    reason: str | None = None
    error: BaseException | None = None


@dataclass(frozen=True)
class Source:
    """Where a rollout's samples come from, and what it asks of the engine.

    `submit(i, deliver)` starts sample i, which puts its pieces to `deliver`, and returns its task and its key;
    `drop(tasks, keys, muted)` ends requests, frees what the workers hold of the keys and captures no more neurons of
    the muted ones; `read(lengths)` reads what they captured, by key; `finish(tokens)` first has the last of these
    tokens of theirs read; `release(n)` gives n places of the batch back; `abandon(tasks, keys)` is `drop` without
    waiting.
    """

    prompt: tuple[int, ...]
    n: int
    params: SamplingParams
    rule: ActivationRule | None
    signals: bool
    decode: Callable[[Sequence[int]], str]
    submit: Callable[[int, Callable[[Piece], None]], tuple[Any, str]]
    drop: Callable[[Sequence[Any], Sequence[str], Sequence[str]], None]
    read: Callable[[dict[str, int]], dict[str, Found]]
    finish: Callable[[dict[str, list[int]]], None]
    release: Callable[[int], None]
    abandon: Callable[[Sequence[Any], Sequence[str]], None]


class VllmRollout:
    """Samples do not march in step: a position counts once all that go on have reached it, and what overshoots is cut.

    They run on while nobody looks, until `keep` or the end of the `with` drops them.
    """

    def __init__(self, source: Source, seats: int) -> None:
        self._source, self._seats = source, [seats]
        self._pieces: queue.SimpleQueue[Piece] = queue.SimpleQueue()
        self._tree = PrefixTree(source.n, shared=False)
        self._reason: dict[int, str] = {}
        self._stops = {i: TextStream(source.decode, source.params.stop) for i in range(source.n)}
        self._progress: Progress | None = None
        self._capture = source.rule is not None
        self._seconds, self._capture_s = 0.0, 0.0
        self._closed = False
        self._requests: dict[int, tuple[Any, str]] = {}
        # One that is dropped without being closed must not hold places in the batch.
        self._finalizer = weakref.finalize(self, _abandon, source, self._requests, self._seats)
        self._finalizer.atexit = False
        try:
            for i in range(source.n):
                self._requests[i] = source.submit(i, self._pieces.put)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "VllmRollout":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all requests and free what was captured."""
        if not self._closed:
            self._closed = True
            self._finalizer.detach()
            requests = list(self._requests.values())
            try:
                self._source.drop([task for task, _ in requests], [key for _, key in requests], [])
            finally:
                self._release(self._seats[0])

    def _release(self, seats: int) -> None:
        self._seats[0] -= seats
        self._source.release(seats)

    def until(self, stop: StopRule) -> Iterator[Progress]:
        if self._progress is not None and stop.reached(self._progress):
            return
        while True:
            if self._closed:
                raise NadError("this rollout is closed; start another")
            for progress in progress_of(self._tree):
                self._progress = progress
                yield progress
                if stop.reached(progress):
                    return
            if self._over:
                return
            begin = time.perf_counter()
            self._take(self._pieces.get())
            self._seconds += time.perf_counter() - begin

    @property
    def _over(self) -> bool:
        """Whether no sample goes on past the last position."""
        position = self._tree.position
        return all(i in self._reason and len(tokens) <= position for i, tokens in self._tree.tokens.items())

    def _take(self, piece: Piece) -> None:
        i = piece.sample
        if i not in self._tree.tokens or i in self._reason:  # dropped, or ended by a stop text
            return
        if piece.error is not None:
            what = str(piece.error) or type(piece.error).__name__
            raise NadError(f"sample {i} failed in vLLM: {what}") from piece.error
        tokens, reason = self._cut_at_stop_text(i, piece)
        if reason is not None:
            self._reason[i] = reason
        self._tree.add(i, tokens, ended=reason is not None)

    def _cut_at_stop_text(self, i: int, piece: Piece) -> tuple[tuple[int, ...], str | None]:
        """The piece's tokens up to the one that completes a stop text, which ends the sample."""
        if not self._source.params.stop:
            return piece.tokens, piece.reason
        for place, token in enumerate(piece.tokens):
            self._stops[i].add([token])
            if self._stops[i].stopped:
                self._requests[i][0].cancel()
                return piece.tokens[: place + 1], "stop"
        return piece.tokens, piece.reason

    def keep(self, samples: Sequence[int], capture: bool = True) -> None:
        known = self._tree.tokens.keys()
        if not samples or not set(samples) <= known:
            raise NadError(f"cannot keep the samples {list(samples)}; there are {sorted(known)}")
        dropped = [i for i in known if i not in set(samples)]
        self._tree.keep(list(samples))
        requests = [self._requests.pop(i) for i in dropped]
        muted = [key for _, key in self._requests.values()] if self._capture and not capture else []
        self._capture = self._capture and capture
        self._source.drop([task for task, _ in requests], [key for _, key in requests], muted)
        self._release(max(0, self._seats[0] - len(self._tree.tokens)))

    def group(self) -> Group:
        position = self._tree.position
        lengths = {i: min(len(tokens), position) for i, tokens in self._tree.tokens.items()}
        begin = time.perf_counter()
        if self._capture and self._source.rule is not None and self._source.rule.position == "own":
            # A sample has read every token but its last; what it emitted past the stop says that it has read that too.
            ends = [i for i, tokens in self._tree.tokens.items() if 0 < len(tokens) == lengths[i]]
            self._source.finish({self._requests[i][1]: self._tree.tokens[i] for i in ends})
        found = self._read(lengths) if self._recorded else {}
        self._capture_s += time.perf_counter() - begin
        completions = tuple(self._completion(i, length, found.get(i)) for i, length in sorted(lengths.items()))
        return Group(self._source.prompt, completions, self._tree.computed, self._seconds, self._capture_s)

    @property
    def _recorded(self) -> bool:
        return (self._capture or self._source.signals) and self._tree.position > 0

    def _read(self, lengths: dict[int, int]) -> dict[int, Found]:
        keys = {self._requests[i][1]: i for i in lengths}
        found = {keys[key]: f for key, f in self._source.read({k: lengths[i] for k, i in keys.items()}).items()}
        for i, what in found.items():
            if what.error:
                raise NadError(f"the capture of sample {i} (request {self._requests[i][1]}) failed: {what.error}")
            if self._capture and what.tokens != self._tree.tokens[i][: lengths[i]]:
                raise NadError(f"what was captured for request {self._requests[i][1]} belongs to other tokens")
        return found

    def _completion(self, i: int, length: int, found: Found | None) -> Completion:
        tokens = tuple(self._tree.tokens[i][:length])
        ended = i in self._reason and length == len(self._tree.tokens[i])
        text = cut_at(self._source.decode(tokens), self._source.params.stop)
        sets = found.activations if found is not None and self._capture else None
        signals = signals_of(found) if found is not None and self._source.signals else None
        return Completion(i, tokens, text, self._reason[i] if ended else None, sets, signals)


def _abandon(source: Source, requests: dict[int, tuple[Any, str]], seats: list[int]) -> None:
    source.abandon([task for task, _ in requests.values()], [key for _, key in requests.values()])
    source.release(seats[0])


def signals_of(found: Found) -> Signals:
    """Signals from what a worker read; chunks the completion does not reach are dropped."""
    assert found.signals is not None
    used = np.flatnonzero(found.chunks)
    logprob, entropy, self_certainty, confidence = found.signals.astype(np.float32)
    return Signals(logprob, entropy, self_certainty, confidence, found.chunks[: used[-1] + 1 if len(used) else 0])


async def deliver(outputs: Any, sample: int, put: Callable[[Piece], None]) -> None:
    """Put what vLLM says of a request to `put`, piece by piece."""
    try:
        async for output in outputs:
            (found,) = output.outputs
            reason = found.finish_reason if output.finished else None
            if reason not in (None, "stop", "length"):  # vLLM is shutting down, or gave it up
                raise NadError(f"it was ended early ({reason})")
            put(Piece(sample, tuple(found.token_ids), reason))
    except asyncio.CancelledError:  # nobody waits for a sample that was dropped; else the engine was closed
        put(Piece(sample, (), None, NadError("the engine was closed")))
        raise
    except Exception as error:  # vLLM's own kinds: a dead engine, a refused request
        put(Piece(sample, (), None, error))
