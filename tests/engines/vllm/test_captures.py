"""The worker's books, without vLLM: which rows are whose, and that nothing is ever a shorter set."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from torch import nn

from nad.engines.capture.gates import GatedFFN
from nad.engines.capture.layers import DenseLayers
from nad.engines.capture.recorder import ActivationRecorder, Step
from nad.engines.transformers.token_draws import token_signals
from nad.engines.vllm.capture_op import CapturedLayer, Selection, keep_gates
from nad.engines.vllm.captures import EXPIRY_S, Captures, Found, Order
from nad.engines.vllm.shards import Shard
from nad.neurons.activation import ActivationRule, ActivationSet

LAYERS, NEURONS, HIDDEN, VOCABULARY = 3, 40, 8, 20
RULE = ActivationRule(k=12, per_layer=7)
CHUNKED = ActivationRule(k=12, per_layer=7, per="chunk", chunk=3)
OWN, CHUNKED_OWN = (replace(rule, position="own") for rule in (RULE, CHUNKED))
PROMPTS = {"a": 5, "b": 2, "c": 3, "plain": 4}
"""How many tokens they have."""


@dataclass
class Worker:
    """What stands for vLLM: gates and tokens are random, and noted for the recorder that is the truth."""

    capacity: int = 50
    most: int = 10
    time: float = 0.0
    gates: dict[str, dict[int, list[torch.Tensor]]] = field(default_factory=dict)
    """By request and position: those of its first pass."""
    tokens: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.down = [torch.randn(HIDDEN, NEURONS) for _ in range(LAYERS)]
        self.unembed = torch.randn(VOCABULARY, HIDDEN)
        self.selection = Selection.of(self.most, self.capacity, torch.device("cpu"))
        kept = [torch.full((self.capacity + 1, NEURONS), torch.nan) for _ in self.down]
        layers = [CapturedLayer(w, nn.functional.silu, k) for w, k in zip(self.down, kept, strict=True)]
        shard = Shard(0, LAYERS, NEURONS)
        self.captures = Captures(layers, kept, self.unembed.__getitem__, self.selection, shard, lambda: self.time)
        self.kept = kept

    def step(self, batch: Sequence[tuple[str, int, int, bool]]) -> None:
        """One forward pass: of each request the computed and the scheduled positions, and whether it emits.

        A request with another's name and a number after it, as in "a-1", reads the same text.
        """
        names, computed, scheduled, emits = zip(*batch, strict=True)
        texts = [name.partition("-")[0] for name in names]
        places = [(t, p) for t, c, s in zip(texts, computed, scheduled, strict=True) for p in range(c, c + s)]
        inputs = torch.tensor([self.reads(*place) for place in places], dtype=torch.int32)
        self.captures.choose(names, computed, scheduled, emits, inputs)
        merged = [torch.randn(sum(scheduled), 2 * NEURONS) for _ in self.down]
        for layer, x in enumerate(merged):
            keep_gates(x, self.selection.rows, self.selection.slots, self.selection.count, self.kept[layer])
        self.captures.launched()
        sampled = torch.randint(0, VOCABULARY, (len(batch),))
        logits = torch.randn(len(batch), VOCABULARY)
        wanted = self.captures.wants_logits
        self.captures.emitted(sampled, logits[wanted] if wanted else None)
        for row, (text, position) in enumerate(places):
            self.gates.setdefault(text, {}).setdefault(position, [x[row, :NEURONS] for x in merged])
        for i, name in enumerate(names):
            if emits[i]:
                self.tokens.setdefault(name, []).append(int(sampled[i]))
        self.last_logits, self.last_sampled = logits, sampled

    def reads(self, text: str, position: int) -> int:
        """The token at this position; what a prompt holds does not matter."""
        sampled = self.tokens.get(text, [])
        place = position - PROMPTS.get(text, position + 1)
        return sampled[place] if 0 <= place < len(sampled) else 0

    def truth(self, name: str, length: int, rule: ActivationRule) -> tuple[ActivationSet, np.ndarray]:
        linears = [nn.Linear(NEURONS, HIDDEN, bias=False) for _ in self.down]
        for linear, weight in zip(linears, self.down, strict=True):
            linear.weight.data = weight
        ffns = DenseLayers([GatedFFN(linear, slice(0, NEURONS), nn.SiLU(), linear) for linear in linears])
        recorder = ActivationRecorder(ffns, self.unembed, rule, 1, count_chunks=True)
        zero = torch.zeros(1, dtype=torch.int64)
        for position in range(length):
            where = PROMPTS[name] - 1 + rule.lag + position
            gates = [nn.functional.silu(g)[None] for g in self.gates[name][where]]
            recorder.add(Step(gates, zero, torch.tensor([self.tokens[name][position]]), zero, zero, position))
        (found,), chunks = recorder.finish()
        return found, chunks[0]

    def read(self, name: str, length: int) -> Found:
        return self.captures.read({name: length})[name]


def started(rule: ActivationRule = RULE, signals: bool = False, **options: int) -> Worker:
    worker = Worker(**options)
    for name, prompt in PROMPTS.items():
        worker.captures.begin(name, Order(name, rule, signals) if name != "plain" else None, prompt)
    return worker


def read_last(worker: Worker, name: str, length: int, cached: int = 0) -> None:
    """A request that reads the last of the sample's first `length` tokens, all of them beyond `cached` positions."""
    order = Order(name, OWN, score=(worker.tokens[name][length - 1],), start=length - 1)
    positions = PROMPTS[name] + length
    worker.captures.begin(f"{name}-1", order, positions)
    worker.step([(f"{name}-1", cached, positions - cached, True)])
    worker.captures.end(f"{name}-1")


@pytest.mark.parametrize("rule", [RULE, CHUNKED, OWN, CHUNKED_OWN], ids=["token", "chunk", "own", "chunk-own"])
@pytest.mark.parametrize("capacity", [10, 11, 50])
def test_sets_of_requests_out_of_step_beside_one_that_is_not_captured(rule: ActivationRule, capacity: int) -> None:
    """a's prompt comes in two parts, b's at once, c joins later; the buffer of `capacity` rows fills on the way.

    c has emitted its 40th token and not read it: at own positions a request of its own does.
    """
    worker = started(rule, capacity=capacity)
    worker.step([("a", 0, 3, False), ("plain", 0, 4, True), ("b", 0, 2, True)])
    worker.step([("plain", 4, 1, True), ("b", 2, 1, True), ("a", 3, 2, True)])
    for t in range(40):
        worker.step(
            [("a", 5 + t, 1, True), ("b", 3 + t, 1, True), ("c", max(0, 2 + t) if t else 0, 1 if t else 3, True)]
        )
    if rule.lag:
        for name in "abc":
            read_last(worker, name, 40, cached=32)
    for name in "abc":
        for length in (1, 7, 40):
            found = worker.read(name, length)
            expected, _ = worker.truth(name, length, rule)
            assert found.error == ""
            assert found.tokens == worker.tokens[name][:length]
            assert found.activations.neuron.tolist() == expected.neuron.tolist()
            assert found.activations.first_token.tolist() == expected.first_token.tolist()
            np.testing.assert_array_max_ulp(found.activations.peak, expected.peak, maxulp=1)
            assert found.signals is None


def test_signals_and_counts_of_chunks() -> None:
    worker = started(signals=True)
    worker.step([("plain", 0, 4, True), ("b", 0, 2, True)])
    expected = [token_signals(worker.last_logits[1:], torch.tensor([0]), worker.last_sampled[1:])]
    for t in range(35):
        worker.step([("b", 2 + t, 1, True)])
        expected.append(token_signals(worker.last_logits, torch.tensor([0]), worker.last_sampled))
    found = worker.read("b", 36)
    np.testing.assert_allclose(found.signals, torch.cat(expected, dim=1).numpy(), rtol=1e-6)
    assert found.chunks.tolist() == worker.truth("b", 36, RULE)[1].tolist()
    worker.captures.mute(["b"])
    worker.step([("b", 37, 1, True)])
    after = worker.read("b", 37)
    assert after.activations is None
    assert after.signals.shape == (4, 37)


def test_what_is_read_again_after_a_preemption_counts_once() -> None:
    worker = started()
    worker.step([("b", 0, 2, True)])
    worker.step([("b", 2, 1, True)])
    worker.captures.begin("b", Order("b", RULE), 2)  # the second model runner announces it again
    worker.step([("b", 0, 3, False)])  # the prompt and two tokens, in two parts
    worker.step([("b", 3, 1, True)])
    worker.step([("b", 4, 1, True)])
    assert worker.read("b", 4).activations.neuron.tolist() == worker.truth("b", 4, RULE)[0].neuron.tolist()


def test_at_own_positions_a_sample_may_go_on_after_its_last_token_was_read_for_it() -> None:
    worker = started(OWN, signals=True)
    worker.step([("b", 0, 2, True)])
    worker.step([("b", 2, 1, True)])
    read_last(worker, "b", 2)
    assert worker.read("b", 2).activations.neuron.tolist() == worker.truth("b", 2, OWN)[0].neuron.tolist()
    for position in (3, 4, 5):
        worker.step([("b", position, 1, True)])
    worker.captures.begin("b", Order("b", OWN), 2)
    worker.step([("b", 0, 6, False)])  # read again after a preemption, in two parts
    worker.step([("b", 6, 1, True)])
    found = worker.read("b", 5)
    assert found.activations.neuron.tolist() == worker.truth("b", 5, OWN)[0].neuron.tolist()
    assert found.tokens == worker.tokens["b"][:5]
    assert found.signals.shape == (4, 5)


def test_the_request_that_reads_a_last_token_leaves_the_sample_alone() -> None:
    """Its end does not make the sample old; and of a sample that was dropped it captures nothing."""
    worker = started(OWN)
    worker.step([("b", 0, 2, True), ("c", 0, 3, True)])
    read_last(worker, "b", 1)
    worker.time = EXPIRY_S + 1
    worker.captures.begin("d", Order("d", OWN), 1)
    worker.step([("b", 2, 1, True), ("c", 3, 1, True)])
    worker.step([("b", 3, 1, True)])
    assert worker.read("b", 2).error == ""
    worker.captures.forget(["c"])
    read_last(worker, "c", 2)
    assert "nothing was captured" in worker.read("c", 2).error
    assert len(worker.captures) == 3


def test_a_last_token_is_not_read_over_a_gap() -> None:
    worker = started(OWN)
    for position, rows in ((0, 2), (2, 1), (3, 1)):
        worker.step([("b", position, rows, True)])
    worker.captures.begin("b-1", Order("b", OWN, score=(1,), start=3), 6)
    worker.step([("b-1", 0, 6, True)])
    assert worker.read("b", 1).error == "its token 2 was not captured; the next one seen was 3"


def test_a_gap_is_an_error_and_never_a_shorter_set() -> None:
    worker = started()
    worker.step([("b", 0, 2, True)])
    worker.step([("b", 3, 1, True)])
    assert worker.read("b", 1).error == "its token 1 was not captured; the next one seen was 2"


@pytest.mark.parametrize("rule", [RULE, OWN])
def test_more_tokens_than_were_captured_are_an_error(rule: ActivationRule) -> None:
    worker = started(rule)
    worker.step([("b", 0, 2, True)])
    assert worker.read("b", 2 - rule.lag).error == f"{1 - rule.lag} of its {2 - rule.lag} tokens were captured"
    assert "nothing was captured" in worker.read("x", 2).error


def test_too_many_rows_in_a_step_are_an_error_of_those_requests() -> None:
    worker = started(most=2)
    worker.step([("a", 0, 5, True), ("b", 0, 2, True), ("c", 0, 3, True)])
    assert worker.read("a", 1).error == "3 rows to capture in one step, more than are kept at once"


def test_gates_that_are_not_numbers_fail_their_requests_alone() -> None:
    worker = started()
    worker.captures.begin("d", Order("d", CHUNKED), 1)
    worker.step([("a", 0, 5, True)])
    worker.kept[0][0] = torch.nan
    worker.step([("d", 0, 1, True)])
    assert "not finite" in worker.read("a", 1).error
    assert worker.read("d", 1).error == ""


@pytest.mark.parametrize("rule", [RULE, OWN])
def test_a_given_text_is_read_in_pieces_and_with_a_prefix_that_is_cached(rule: ActivationRule) -> None:
    """A prompt of 4 and a text of 5 tokens: positions 3 to 7 emit them, and they stand at 4 to 8."""
    worker, text, lag = Worker(), (7, 3, 3, 19, 0), rule.lag
    worker.tokens["plain"] = list(text)
    worker.captures.begin("plain-0", Order("s", rule, score=text[:2], start=0), 5 + lag)
    for batch in ([("plain-0", 0, 4 + lag, False)], [("plain-0", 4 + lag, 1, True)]):
        worker.step(batch)
    worker.captures.end("plain-0")
    worker.captures.begin("plain-2", Order("s", rule, score=text[2:], start=2), 8 + lag)
    worker.step([("plain-2", 4 + lag, 4, True)])
    found = worker.read("s", 5)
    assert (found.error, tuple(found.tokens)) == ("", text)
    assert found.activations.neuron.tolist() == worker.truth("plain", 5, rule)[0].neuron.tolist()


def test_a_cached_position_of_a_given_text_is_an_error() -> None:
    worker = Worker()
    worker.captures.begin("r", Order("s", RULE, score=(7, 3, 1)), 5)
    worker.step([("r", 4, 1, True)])
    assert worker.read("s", 3).error == "its token 0 was not captured; the next one seen was 2"


def test_what_is_forgotten_leaves_nothing_and_captures_no_more() -> None:
    worker = started()
    worker.step([("b", 0, 2, True), ("c", 0, 3, True)])
    worker.captures.forget(["b", "a", "nobody"])
    worker.step([("b", 2, 1, True), ("c", 3, 1, True)])
    assert len(worker.captures) == 1
    assert worker.read("c", 2).activations.neuron.tolist() == worker.truth("c", 2, RULE)[0].neuron.tolist()


def test_what_nobody_reads_expires_after_its_request_has_ended() -> None:
    worker = started()
    worker.captures.end("a")
    worker.time = EXPIRY_S + 1
    worker.captures.begin("d", Order("d", RULE), 1)
    assert "nothing was captured" in worker.read("a", 1).error
    assert len(worker.captures) == 3


def test_an_order_travels_as_plain_values() -> None:
    order = Order("k", CHUNKED, True, (3, 4), 2)
    assert Order.of(order.packed("word"), {"word"}) == order
    assert Order.of(order.packed("word"), {"other"}) is None
    assert Order.of({"other": 1}, {"word"}) is None
    assert Order.of(None, {"word"}) is None


def test_no_row_is_kept_after_the_pass_it_was_chosen_for() -> None:
    worker = started()
    worker.step([("b", 0, 2, True)])
    before = worker.kept[0].clone()
    merged = torch.randn(4, 2 * NEURONS)
    keep_gates(merged, worker.selection.rows, worker.selection.slots, worker.selection.count, worker.kept[0])
    assert torch.equal(before.nan_to_num(), worker.kept[0].nan_to_num())


def test_a_request_is_captured_where_its_order_stands_under_a_word_that_the_worker_was_told() -> None:
    """What clients of vLLM's own API put into the same place is not read, whatever it is."""
    order = Order("a", RULE, True, (1, 2), 3)
    assert Order.of(order.packed("secret"), {"secret", "another"}) == order
    for stranger in (None, {}, {"nad": "x"}, {"word": {"key": 1}}, order.packed("nad")):
        assert Order.of(stranger, {"secret"}) is None
