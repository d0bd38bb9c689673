"""The rollout of the transformers engine: n samples of one prompt step by step, identical prefixes once."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import torch
from jaxtyping import Bool, Float32, UInt16
from torch import Tensor

from nad.engines.capture.recorder import ActivationRecorder, Step
from nad.engines.transformers.decoder import Decoder, Forward, State
from nad.engines.transformers.row_sharing import Emission, RowSharing
from nad.engines.transformers.token_draws import draw_tokens, token_signals, uniforms
from nad.errors import NadError
from nad.neurons.activation import ActivationSet
from nad.prefixes import PrefixTree
from nad.stopping import Progress, StopRule, progress_of
from nad.text_stream import TextStream, cut_at
from nad.types import Completion, Group, SamplingParams, Signals


@dataclass(frozen=True)
class Source:
    """Where a rollout's samples come from: the prompt, how tokens are drawn, and what they mean as text."""

    prompt: tuple[int, ...]
    n: int
    params: SamplingParams
    eos: frozenset[int]
    decode: Callable[[Sequence[int]], str]
    device: torch.device
    share: bool = True


class TransformersRollout:
    """Draws one token for every unfinished sample in each step; rows of the batch carry samples with equal tokens.

    `release` is called once, when everything has been freed.
    """

    def __init__(
        self,
        decoder: Decoder,
        source: Source,
        recorder: ActivationRecorder | None,
        signals: bool,
        release: Callable[[], None],
    ) -> None:
        n, params = source.n, source.params
        self._decoder, self._source, self._recorder, self._release = decoder, source, recorder, release
        self._eos = np.array(sorted(source.eos))
        self._uniform = uniforms(params.seed, np.arange(n), 0, params.max_tokens)
        self._sharing = RowSharing(n, source.share)
        self._tree = PrefixTree(n, source.share)
        self._reason: dict[int, str] = {}
        self._stops = {i: TextStream(source.decode, params.stop) for i in range(n)} if params.stop else {}
        self._signals: list[tuple[np.ndarray, np.ndarray]] | None = [] if signals else None
        self._state: State | None = None
        self._tokens: Tensor | None = None
        """The last token of each row: emitted, and not yet read by the model."""
        self._logits: Tensor | None = None
        """Instead of it, where it has been read: what the model said after it."""
        self._progress: Progress | None = None
        self._seconds, self._capture_s = 0.0, 0.0
        self._closed = False

    def __enter__(self) -> "TransformersRollout":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free everything; the engine is free for the next rollout."""
        if not self._closed:
            self._closed = True
            self._state = self._tokens = self._logits = self._recorder = None
            self._release()

    def until(self, stop: StopRule) -> Iterator[Progress]:
        if self._progress is not None and stop.reached(self._progress):
            return
        while len(self._sharing.samples):
            if self._closed:
                raise NadError("this rollout is closed; start another")
            self._step()
            (self._progress,) = progress_of(self._tree)
            yield self._progress
            if stop.reached(self._progress):
                return

    @torch.inference_mode()
    def _step(self) -> None:
        """One more token for every unfinished sample."""
        begin = time.perf_counter()
        emission = self._emit(self._forward())
        ended = self._ended(emission)
        for i, sample in enumerate(self._sharing.samples.tolist()):
            pair = emission.pair[i]
            self._tree.add(sample, [int(emission.token[pair])], bool(ended[pair]))
        if self._at_own_position:
            self._read_at_once(emission, ended)
        else:
            self._advance(emission, ~ended)
        self._seconds += time.perf_counter() - begin

    @property
    def _at_own_position(self) -> bool:
        return self._recorder is not None and self._recorder.rule.position == "own"

    def _forward(self) -> Forward:
        """The forward pass that emits the next tokens, with its gates where Eq. 1 takes those."""
        if self._logits is not None:
            return Forward(self._logits, None)
        capture = self._recorder is not None and not self._at_own_position
        if self._tokens is None:
            self._state, forward = self._decoder.prefill(self._source.prompt, capture)
            return forward
        assert self._state is not None
        return self._decoder.step(self._state, self._tokens, capture)

    def _advance(self, emission: Emission, living: Bool[np.ndarray, " pairs"]) -> None:
        """Each living pair becomes a row, whose token the model has not read."""
        parents, tokens = self._sharing.advance(emission, living)
        self._logits = None
        if len(parents):
            assert self._state is not None
            self._state = self._state.rearrange(parents.tolist())
            self._tokens = self._on_device(tokens)
        else:
            self._state = self._tokens = None

    def _read_at_once(self, emission: Emission, ended: Bool[np.ndarray, " pairs"]) -> None:
        """Read every token just emitted, one that ends its sample too: its gates are those of its own position.

        What the model says after it is kept for the next draw (docs/decisions/0062-which-position.md).
        """
        self._advance(emission, np.ones_like(ended))
        assert self._state is not None and self._tokens is not None and self._recorder is not None
        forward = self._decoder.step(self._state, self._tokens, capture=True)
        assert forward.gates is not None
        every = torch.arange(len(self._tokens), device=self._source.device)
        samples, row = map(self._on_device, (self._sharing.samples, self._sharing.row))
        self._recorder.add(Step(forward.gates, every, self._tokens, samples, row, self._position))
        self._tokens, self._logits = None, forward.logits
        self._sharing.end(ended[emission.pair])
        if not len(self._sharing.samples):
            self._state = self._logits = None

    def _emit(self, forward: Forward) -> Emission:
        """Draw the next token of every unfinished sample, and note what the model says of it."""
        samples, position = self._sharing.samples, self._position
        row = self._on_device(self._sharing.row)
        uniform = self._on_device(self._uniform[samples, position])
        params = self._source.params
        drawn = draw_tokens(forward.logits, row, uniform, params.temperature, params.top_p)
        if self._signals is not None:
            found = token_signals(forward.logits, row, drawn)
            self._signals.append((samples, found.float().cpu().numpy()))
        emission = self._sharing.emit(drawn.cpu().numpy())
        if self._recorder is not None and forward.gates is not None:
            columns = (emission.row, emission.token, samples, emission.pair)
            emitted_row, token, owner, pair = map(self._on_device, columns)
            self._recorder.add(Step(forward.gates, emitted_row, token, owner, pair, position))
        return emission

    @property
    def _position(self) -> int:
        return 0 if self._progress is None else self._progress.position

    def _on_device(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self._source.device)

    def _ended(self, emission: Emission) -> Bool[np.ndarray, " pairs"]:
        """Which pairs end here, and why their samples do."""
        stopped = np.isin(emission.token, self._eos)
        if self._stops:
            for i, sample in enumerate(self._sharing.samples.tolist()):
                pair = emission.pair[i]
                self._stops[sample].add([int(emission.token[pair])])
                stopped[pair] |= self._stops[sample].stopped
        full = self._position + 1 == self._source.params.max_tokens
        for i, sample in enumerate(self._sharing.samples.tolist()):
            if stopped[emission.pair[i]]:
                self._reason[sample] = "stop"
            elif full:
                self._reason[sample] = "length"
        return stopped | full

    @torch.inference_mode()
    def keep(self, samples: Sequence[int], capture: bool = True) -> None:
        known = self._tree.tokens.keys()
        if not samples or not set(samples) <= known:
            raise NadError(f"cannot keep the samples {list(samples)}; there are {sorted(known)}")
        kept = np.array(sorted(set(samples)))
        self._tree.keep(kept.tolist())
        rows = self._sharing.keep(kept)
        if not capture:
            self._capture_s, self._recorder = self._captured_s, None
        elif self._recorder is not None:
            self._recorder.keep(self._on_device(kept))
        if self._state is None:
            return
        if not len(rows):
            self._state = self._tokens = self._logits = None
            return
        self._state = self._state.fork(int(rows[0])) if len(rows) == 1 else self._state.rearrange(rows.tolist())
        place = self._on_device(rows)
        self._tokens, self._logits = (x if x is None else x[place] for x in (self._tokens, self._logits))

    @property
    def _captured_s(self) -> float:
        return self._recorder.seconds if self._recorder is not None else self._capture_s

    @torch.inference_mode()
    def group(self) -> Group:
        kept = list(self._tree.tokens)
        sets, chunks = self._recorder.finish() if self._recorder is not None else (None, None)
        completions = tuple(
            self._completion(i, sets[place] if sets else None, chunks[place] if chunks is not None else None)
            for place, i in enumerate(kept)
        )
        captured = self._captured_s
        return Group(self._source.prompt, completions, self._tree.computed, self._seconds - captured, captured)

    def _completion(
        self, i: int, neurons: ActivationSet | None, chunks: UInt16[np.ndarray, " chunks"] | None
    ) -> Completion:
        tokens = tuple(self._tree.tokens[i])
        text = cut_at(self._source.decode(tokens), self._source.params.stop)
        found = self._signals_of(i, chunks) if self._signals is not None else None
        return Completion(i, tokens, text, self._reason.get(i), neurons, found)

    def _signals_of(self, i: int, chunks: UInt16[np.ndarray, " chunks"] | None) -> Signals:
        assert self._signals is not None
        columns = [found[:, samples == i] for samples, found in self._signals]
        none = np.zeros(0, dtype=np.uint16)
        return signals_of(np.concatenate(columns, axis=1), none if chunks is None else chunks)


def signals_of(columns: Float32[np.ndarray, "4 tokens"], chunk_neurons: UInt16[np.ndarray, " chunks"]) -> Signals:
    """Signals from the rows of `token_signals`; chunks the completion does not reach are dropped."""
    used = np.flatnonzero(chunk_neurons)
    logprob, entropy, self_certainty, confidence = columns
    chunks = chunk_neurons[: used[-1] + 1 if len(used) else 0]
    return Signals(logprob, entropy, self_certainty, confidence, chunks)
