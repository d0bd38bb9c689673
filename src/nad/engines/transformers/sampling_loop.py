"""Sampling the n completions of one prompt step by step, identical prefixes once."""

from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, UInt16
from torch import Tensor

from nad.engines.capture.recorder import ActivationRecorder, Step
from nad.engines.transformers.row_sharing import Emission, Rows
from nad.engines.transformers.token_draws import draw_tokens, token_signals, uniforms
from nad.neurons.activation import ActivationSet, activation_set
from nad.stopping import Progress, StopRule
from nad.types import Completion, SamplingParams, Signals

EMPTY = activation_set(np.zeros(0, int), np.zeros(0, int), np.zeros(0))


@runtime_checkable
class Runner(Protocol):
    """What a rollout needs of an engine: forward passes, and the gates they leave behind."""

    eos: frozenset[int]

    def prefill(self, tokens: tuple[int, ...], record: bool = False) -> tuple[Any, Float[Tensor, "1 v"]]: ...
    def open_rows(self, cache: Any) -> Any: ...
    def decode_step(
        self, cache: Any, tokens: Int[np.ndarray, " rows"], record: bool = False
    ) -> Float[Tensor, "rows v"]: ...
    def gates(self, rows: int) -> list[Tensor]: ...
    def decode(self, tokens: tuple[int, ...]) -> str: ...


class Rollout:
    """n samples of one prompt under way. `computed` counts the tokens of distinct prefixes, the unit of `budget`."""

    def __init__(
        self,
        runner: Runner,
        prompt: tuple[int, ...],
        n: int,
        params: SamplingParams,
        recorder: ActivationRecorder | None,
        signals: bool,
        share: bool = True,
    ) -> None:
        self._runner, self._params, self._recorder, self._with_signals = runner, params, recorder, signals
        self._rows = Rows(n, share)
        self._eos = np.array(sorted(runner.eos))
        self._uniform = uniforms(params.seed, np.arange(n), 0, params.max_tokens)
        self._tokens = np.zeros((n, params.max_tokens), dtype=np.int64)
        self._length = np.zeros(n, dtype=np.int64)
        self._stopped = np.zeros(n, dtype=bool)
        self._signals: list[tuple[np.ndarray, np.ndarray]] = []
        self._n, self._position, self._finished, self.computed = n, 0, 0, 0
        prefilled, self._logits = runner.prefill(prompt, record=recorder is not None)
        self._cache = runner.open_rows(prefilled)

    def step(self, stop: StopRule) -> bool:
        """Emit one token in every unfinished sample. Returns whether to go on."""
        emission = self._emit()
        living = ~np.isin(emission.token, self._eos)
        self.computed += len(living)
        self._finished += int((~living).sum())
        self._position += 1
        unfinished = int(living[emission.pair].sum())
        self._stopped[self._rows.samples[~living[emission.pair]]] = True
        rows = int(living.sum())
        progress = Progress(self._n, self._position, rows + self._finished, self.computed, rows, unfinished)
        if stop.reached(progress) or not unfinished or self._position == self._params.max_tokens:
            return False
        parents, tokens = self._rows.advance(emission, living)
        self._cache.rearrange(parents.tolist())
        self._logits = self._runner.decode_step(self._cache, tokens, record=self._recorder is not None)
        return True

    def _emit(self) -> Emission:
        """Draw the next token of every unfinished sample and note what it means."""
        samples = self._rows.samples
        device = self._logits.device
        row = torch.from_numpy(self._rows.row).to(device)
        uniform = torch.from_numpy(self._uniform[samples, self._position]).to(device)
        drawn = draw_tokens(self._logits, row, uniform, self._params.temperature, self._params.top_p)
        if self._with_signals:
            self._signals.append((samples, token_signals(self._logits, row, drawn).float().cpu().numpy()))
        tokens = drawn.cpu().numpy()
        self._tokens[samples, self._position] = tokens
        self._length[samples] += 1
        emission = self._rows.emit(tokens)
        if self._recorder is not None:
            columns = (emission.row, emission.token, samples, emission.pair)
            row, token, owner, pair = (torch.from_numpy(column).to(device) for column in columns)
            gates = self._runner.gates(len(self._logits))
            self._recorder.add(Step(gates, row, token, owner, pair, self._position))
        return emission

    def completions(self) -> tuple[Completion, ...]:
        """The samples as they stand; unfinished ones carry the cache and their row in it."""
        sets, chunks = (
            self._recorder.finish() if self._recorder else ([EMPTY] * self._n, np.zeros((self._n, 0), dtype=np.uint16))
        )
        rows = dict(zip(self._rows.samples.tolist(), self._rows.row.tolist(), strict=True))
        return tuple(self._completion(i, sets[i], chunks, rows) for i in range(self._n))

    def _completion(self, i: int, neurons: ActivationSet, chunks: np.ndarray, rows: dict[int, int]) -> Completion:
        tokens = tuple(self._tokens[i, : self._length[i]].tolist())
        full = len(tokens) == self._params.max_tokens
        reason = "stop" if self._stopped[i] else "length" if full else None
        found = self._signals_of(i, chunks) if self._with_signals else None
        cache = (self._cache, rows[i]) if reason is None else None
        return Completion(i, tokens, self._runner.decode(tokens), reason, neurons, found, cache)

    def _signals_of(self, i: int, chunks: UInt16[np.ndarray, "n chunks"]) -> Signals:
        columns = [found[:, samples == i] for samples, found in self._signals]
        return signals_of(np.concatenate(columns, axis=1), chunks[i])


def signals_of(columns: Float32[np.ndarray, "4 tokens"], chunk_neurons: UInt16[np.ndarray, " chunks"]) -> Signals:
    """Signals from the rows of `token_signals`; chunks the completion does not reach are dropped."""
    used = np.flatnonzero(chunk_neurons)
    logprob, entropy, self_certainty, confidence = columns
    chunks = chunk_neurons[: used[-1] + 1 if len(used) else 0]
    return Signals(logprob, entropy, self_certainty, confidence, chunks)
