"""What a worker knows of the requests it captures: which rows are whose, what they activated, what was read."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from nad.engines.capture.scoring import Pairs, ScoredLayer
from nad.engines.capture.unions import Activated, ActivationUnions
from nad.engines.transformers.token_draws import token_signals
from nad.engines.vllm.capture_op import Selection
from nad.engines.vllm.shards import Shard, ShardedScorer
from nad.errors import NadError
from nad.neurons.activation import ActivationRule, ActivationSet

EXPIRY_S = 600.0
"""How long what nobody reads is kept after its request has ended."""
_UNION_BYTES = 64 << 20
_PUSH_BYTES = 512 << 20
"""Rows of W_u W_out held at once, of as many tokens as are scored together."""


@dataclass(frozen=True)
class Order:
    """What a request asks of the worker, as it travels in `SamplingParams.extra_args` under a secret word.

    Where vLLM's own API is served too, its clients can put what they like there: only who knows the word is heard.
    `key` names it; `rule` None captures no neurons. `score` holds tokens of a given text, from its token number `start`
    on, whose gates are those of the prompt's last positions: their neurons are read, not those of what is sampled.
    Requests that read one text piece by piece have one key; so has the one that reads a sample's last token.
    """

    key: str
    rule: ActivationRule | None
    signals: bool = False
    score: tuple[int, ...] = ()
    start: int = 0

    def packed(self, word: str) -> dict[str, Any]:
        rule = vars(self.rule) if self.rule else None
        return {word: {**vars(self), "rule": rule, "score": list(self.score)}}

    @classmethod
    def of(cls, extra_args: Mapping[str, Any] | None, words: Collection[str]) -> "Order | None":
        """What stands under one of the words."""
        word = next((name for name in extra_args or () if name in words), None)
        if word is None or extra_args is None:
            return None
        found = extra_args[word]
        rule = ActivationRule(**found["rule"]) if found["rule"] else None
        return cls(found["key"], rule, found["signals"], tuple(found["score"]), found["start"])


@dataclass(eq=False)
class _Record:
    """What was captured under one key: which token's row comes next, and what the tokens activated, one by one.

    Rows have the gates of the token they emit, or (`lag` 1) of the one before, which they read. Of a sample the first
    row then has no token's: it counts as that of token -1.
    """

    order: Order
    lag: int
    chosen: int
    tokens: list[int] = field(default_factory=list)
    neurons: list[Tensor] = field(default_factory=list)
    scores: list[Tensor] = field(default_factory=list)
    signals: list[Tensor] = field(default_factory=list)
    error: str = ""
    ended: float | None = None

    @property
    def rule(self) -> ActivationRule | None:
        return self.order.rule


class _Reading(NamedTuple):
    """A request under way, and the record it adds to."""

    record: _Record
    order: Order
    prompt: int


class _Row(NamedTuple):
    """A row of the forward pass with the gates of a record's token `number`, which is `token` if that is known.

    `sampled` is its place among the sampled tokens.
    """

    record: _Record
    row: int
    number: int
    sampled: int | None
    token: int = -1


class Found(NamedTuple):
    """What is read of one request: its tokens, their sets, signals, or why there are none."""

    tokens: list[int]
    activations: ActivationSet | None
    chunks: np.ndarray
    signals: np.ndarray | None
    error: str = ""


class Captures:
    """Books the rows of every forward pass, and turns their gates into activation sets (Eqs. 1-3, 5 and 6).

    For each step: `begin` and `end` for requests that come and go, `choose` before the forward pass, `emitted` after
    the draw. `capacity` is the number of rows whose gates are held before they are scored.
    """

    def __init__(
        self,
        layers: Sequence[ScoredLayer],
        gates: Sequence[Tensor],
        unembed: Callable[[Tensor], Tensor],
        selection: Selection,
        shard: Shard,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._layers, self._gates, self._unembed = layers, gates, unembed
        self._selection, self._shard, self._clock = selection, shard, clock
        self._capacity, self._device = len(gates[0]) - 1, gates[0].device
        self._token = torch.zeros(self._capacity, dtype=torch.int64, device=self._device)
        self._records: dict[str, _Record] = {}
        self._of_request: dict[str, _Reading] = {}
        self._held: list[_Record] = []
        """Whose row each used slot is."""
        self._chosen: list[_Row] = []
        self._kept: list[tuple[int, _Row]] = []
        """Of the rows chosen for this step those whose gates are kept, each with its slot."""

    def begin(self, request: str, order: Order | None, prompt: int) -> None:
        """A request has come, or come back after it was preempted."""
        if order is None or request in self._of_request:
            return
        now = self._clock()
        for key in [k for k, r in self._records.items() if r.ended is not None and now - r.ended > EXPIRY_S]:
            del self._records[key]
        if order.start and order.key not in self._records:
            return  # what it goes on with was dropped
        lag = order.rule.lag if order.rule else 0
        record = self._records.setdefault(order.key, _Record(order, lag, 0 if order.score else -lag))
        record.ended = None
        self._of_request[request] = _Reading(record, order, prompt)

    def end(self, request: str) -> None:
        """A request has ended; what was captured waits to be read."""
        ended = self._of_request.pop(request, None)
        if ended is not None and all(other.record is not ended.record for other in self._of_request.values()):
            ended.record.ended = self._clock()

    def choose(
        self,
        requests: Sequence[str],
        computed: Sequence[int] | np.ndarray,
        scheduled: Sequence[int] | np.ndarray,
        emits: Sequence[bool] | np.ndarray,
        inputs: Int[Tensor, " rows"],
    ) -> None:
        """Name the rows of the coming forward pass whose gates are to be kept.

        Of each request, in the order of its rows: how many positions are computed already, how many come now, and
        whether its last row emits a token. `inputs` are the tokens that the rows read.
        """
        self._chosen = []
        start = 0
        for i, request in enumerate(requests):
            reading = self._of_request.get(request)
            if reading is not None and not reading.record.error:
                self._choose_of(reading, i, start, int(computed[i]), int(scheduled[i]), bool(emits[i]))
            start += int(scheduled[i])
        rows = [chosen for chosen in self._chosen if chosen.record.rule is not None and chosen.number >= 0]
        if len(self._held) + len(rows) > self._capacity:
            self._flush()
        if len(rows) > min(self._capacity, len(self._selection.rows)):
            for chosen in rows:
                chosen.record.error = f"{len(rows)} rows to capture in one step, more than are kept at once"
            rows = []
        slots = list(range(len(self._held), len(self._held) + len(rows)))
        self._kept = list(zip(slots, rows, strict=True))
        self._held += [chosen.record for chosen in rows]
        self._selection.set([chosen.row for chosen in rows], slots)
        if read := [(slot, chosen.row) for slot, chosen in self._kept if chosen.record.lag]:
            slot, row = torch.tensor(read, device=self._device).T
            self._token[slot] = inputs[row].long()
        if given := [(slot, c.token) for slot, c in self._kept if c.sampled is None and not c.record.lag]:
            slot, token = torch.tensor(given, device=self._device).T
            self._token[slot] = token

    def _choose_of(self, reading: _Reading, place: int, start: int, computed: int, scheduled: int, emits: bool) -> None:
        record, order, prompt = reading
        if order.score:
            before = prompt - len(order.score)
            for position in range(max(computed, before), computed + scheduled):
                number = order.start + position - before
                if self._in_order(record, number):
                    token = order.score[position - before]
                    self._chosen.append(_Row(record, start + position - computed, number, None, token))
        elif emits and self._in_order(record, number := computed + scheduled - prompt - record.lag):
            self._chosen.append(_Row(record, start + scheduled - 1, number, place))

    def _in_order(self, record: _Record, number: int) -> bool:
        """Whether this token is the next one; a gap is an error, never a shorter set."""
        if number < record.chosen:
            return False  # read once more after a preemption
        if number > record.chosen:
            record.error = f"its token {record.chosen} was not captured; the next one seen was {number}"
            return False
        record.chosen += 1
        return True

    def launched(self) -> None:
        """The forward pass is under way: later ones (of nobody) keep nothing."""
        self._selection.clear()

    @property
    def _wanted(self) -> list[_Row]:
        return [row for row in self._chosen if row.record.order.signals and row.sampled is not None]

    @property
    def wants_logits(self) -> list[int]:
        """The places among the sampled tokens whose logits `emitted` needs."""
        return [row.sampled for row in self._wanted if row.sampled is not None]

    def emitted(self, sampled: Int[Tensor, " rows"], logits: Float[Tensor, "wanted v"] | None = None) -> None:
        """The tokens of this step, and the logits of the places in `wants_logits`."""
        drawn = [(slot, c.sampled) for slot, c in self._kept if c.sampled is not None and not c.record.lag]
        if drawn:
            slot, place = torch.tensor(drawn, device=self._device).T
            self._token[slot] = sampled[place].long()
        wanted = self._wanted
        if logits is not None:
            place = torch.tensor([chosen.sampled for chosen in wanted], device=self._device)
            found = token_signals(logits, torch.arange(len(wanted), device=self._device), sampled[place].long())
            for i, chosen in enumerate(wanted):
                chosen.record.signals.append(found[:, i])
        self._chosen, self._kept = [], []

    def _flush(self) -> None:
        """Score what is held, and hand each row's neurons to its record. All workers of a group do it together."""
        held, self._held = self._held, []
        if not held:
            return
        stages = self._shard.pipeline
        mine = self._token[: len(held)] if stages.rank == stages.size - 1 else None
        token = stages.of_last((len(held),), torch.int64, self._device, mine)
        for rule in dict.fromkeys(record.rule for record in held):
            if rule is not None:  # those that were dropped meanwhile have none
                slots = [slot for slot, record in enumerate(held) if record.rule == rule]
                for start in range(0, len(slots), self._together):
                    self._score(rule, slots[start : start + self._together], held, token)
        for record, emitted in zip(held, token.tolist(), strict=True):
            record.tokens.append(emitted)

    @property
    def _together(self) -> int:
        """How many rows are scored together: the same number in all workers."""
        workers = self._shard.tensor.size * self._shard.pipeline.size
        return max(1, _PUSH_BYTES * workers // (4 * self.neurons))

    def _score(self, rule: ActivationRule, slots: Sequence[int], held: Sequence[_Record], token: Tensor) -> None:
        row = torch.tensor(slots, device=self._device)
        pairs = Pairs([gate[: len(held)] for gate in self._gates], row, token[row])
        try:
            kept = ShardedScorer(self._layers, self._unembed, rule, self._shard).kept([pairs])
        except NadError as error:  # numbers that are not finite: these requests fail, not the engine
            for slot in slots:
                held[slot].error = str(error)
            return
        lengths = torch.bincount(kept.pair, minlength=len(slots)).tolist()
        columns = kept.neuron.to(torch.int32).split(lengths), kept.score.float().split(lengths)
        for slot, neuron, score in zip(slots, *columns, strict=True):
            held[slot].neurons.append(neuron)
            held[slot].scores.append(score)

    def read(self, wanted: Mapping[str, int]) -> dict[str, Found]:
        """The first tokens of these requests, by key, and what they activated; nothing is forgotten."""
        self._flush()
        found = {key: self._checked(key, length) for key, length in wanted.items()}
        by_rule: dict[tuple[ActivationRule, bool], list[str]] = {}
        for key, problem in found.items():
            order = self._records[key].order if not problem.error else Order(key, None)
            if order.rule is not None:
                by_rule.setdefault((order.rule, order.signals), []).append(key)
        each = max(1, _UNION_BYTES // (9 * self.neurons))
        for (rule, signals), keys in by_rule.items():
            for start in range(0, len(keys), each):
                part = keys[start : start + each]
                sets, chunks = self._united(rule, signals, [(self._records[k], wanted[k]) for k in part])
                for i, key in enumerate(part):
                    found[key] = found[key]._replace(activations=sets[i], chunks=chunks[i])
        return found

    @property
    def neurons(self) -> int:
        """Of the whole model."""
        return self._shard.layers * self._shard.neurons

    def _checked(self, key: str, length: int) -> Found:
        record = self._records.get(key)
        none = np.zeros(0, dtype=np.uint16)
        if record is None:
            return Found([], None, none, None, "nothing was captured for it, or it was not read in time")
        have = [len(record.tokens)] if record.rule else []
        have += [len(record.signals)] if record.order.signals and self._last_stage else []
        if not record.error and have and min(have) < length:
            record.error = f"{min(have)} of its {length} tokens were captured"
        if record.error:
            return Found([], None, none, None, record.error)
        signals = None
        if record.order.signals and self._last_stage:
            columns = [torch.zeros(4, 0), *(s[:, None].float().cpu() for s in record.signals[:length])]
            signals = torch.cat(columns, dim=1).numpy()
        return Found(record.tokens[:length], None, none, signals)

    @property
    def _last_stage(self) -> bool:
        return self._shard.pipeline.rank == self._shard.pipeline.size - 1

    def _united(
        self, rule: ActivationRule, count_chunks: bool, records: Sequence[tuple[_Record, int]]
    ) -> tuple[list[ActivationSet], np.ndarray]:
        """The union over each record's first tokens (Eq. 3)."""
        unions = ActivationUnions(len(records), self.neurons, rule, self._device, count_chunks)
        entries = _entries(records, self._device)
        longest = max(length for _, length in records)
        if rule.per == "token":
            unions.add(entries, longest)
            return unions.finish()
        for start in range(0, longest, rule.chunk):
            inside = (entries.position >= start) & (entries.position < start + rule.chunk)
            unions.add(Activated(*(column[inside] for column in entries)), min(start + rule.chunk, longest))
            unions.end_chunk()
        return unions.finish()

    def mute(self, keys: Sequence[str]) -> None:
        """Capture no more neurons for these; signals go on where they were asked for."""
        for key in keys:
            record = self._records.get(key)
            if record is not None:
                record.order = replace(record.order, rule=None)
                record.neurons, record.scores = [], []

    def forget(self, keys: Sequence[str]) -> None:
        """Capture no more for these, and drop what there is."""
        self.mute(keys)
        gone = {self._records.pop(key) for key in keys if key in self._records}
        self._of_request = {name: r for name, r in self._of_request.items() if r.record not in gone}

    def __len__(self) -> int:
        return len(self._records)


def _entries(records: Sequence[tuple[_Record, int]], device: torch.device) -> Activated:
    """All activations of the records' first tokens."""
    neurons = [n for record, length in records for n in record.neurons[:length]]
    scores = [s for record, length in records for s in record.scores[:length]]
    sizes = torch.tensor([len(n) for n in neurons], dtype=torch.int64, device=device)
    owner = torch.tensor([i for i, (_, length) in enumerate(records) for _ in range(length)], device=device).long()
    position = torch.tensor([p for _, length in records for p in range(length)], device=device).long()
    empty = torch.zeros(0, device=device)
    return Activated(
        owner.repeat_interleave(sizes),
        position.repeat_interleave(sizes),
        torch.cat([empty.long(), *neurons]).long(),
        torch.cat([empty, *scores]),
    )
