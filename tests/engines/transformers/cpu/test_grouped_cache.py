"""Rows that come and go: the grouped cache gives the logits of the model's own modules on the shared prompt."""

import numpy as np
import pytest
import torch
from marks import needs_mkl
from tiny import tiny_model, tiny_tokenizer
from torch import Tensor

from nad.engines.transformers.cpu.decoding_step import CpuDecoder
from nad.engines.transformers.cpu.grouped_cache import GROUP, GroupedCache
from nad.engines.transformers.decoder import Decoder, State
from nad.engines.transformers.engine import TransformersEngine
from nad.engines.transformers.shared_prompt import SharedPromptCache

PROMPT = (257, *range(60, 80), 258)
ROWS = [1, 5, 13, 13, 40, 64, 64, 63, 30, 30, 9, 4, 4, 2, 1, *[3] * 40]
"""How many rows each step has; the last steps go past the room there is for tokens at first."""


def steps() -> list[tuple[list[int], np.ndarray]]:
    """The parents and tokens of each step."""
    random = np.random.default_rng(0)
    before = [1, *ROWS[:-1]]
    return [(random.integers(0, b, n).tolist(), random.integers(60, 120, n)) for b, n in zip(before, ROWS, strict=True)]


def run(engine: TransformersEngine, decoder: Decoder) -> tuple[list[Tensor], State]:
    with torch.inference_mode():
        state, _ = decoder.prefill(PROMPT)
        logits = []
        for parents, tokens in steps():
            state = state.rearrange(parents)
            logits.append(decoder.step(state, torch.from_numpy(tokens)).logits)
    return logits, state


@pytest.fixture(scope="module")
def both() -> list[tuple[list[Tensor], State]]:
    engine = TransformersEngine(tiny_model("llama", torch.float64), tiny_tokenizer(), "tiny")
    assert isinstance(engine._decoder, CpuDecoder)
    return [run(engine, engine._decoder), run(engine, engine._modules)]


def test_rows_come_and_go(both: list[tuple[list[Tensor], State]]) -> None:
    (fast, cache), (own, plain) = both
    assert isinstance(cache, GroupedCache)
    assert isinstance(plain, SharedPromptCache)
    assert cache.length == plain.get_seq_length() == len(PROMPT) + len(ROWS)
    for got, expected in zip(fast, own, strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


@needs_mkl
def test_packed_weights_give_the_logits_of_the_modules() -> None:
    engine = TransformersEngine(tiny_model("llama", torch.float32), tiny_tokenizer(), "tiny")
    assert isinstance(engine._decoder, CpuDecoder)
    fast, _ = run(engine, engine._decoder)
    for got, expected in zip(fast, run(engine, engine._modules)[0], strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)


def test_places_follow_the_rows(both: list[tuple[list[Tensor], State]]) -> None:
    """After 64 rows three are left, and few spare places."""
    cache = both[0][1]
    assert isinstance(cache, GroupedCache)
    assert 3 <= cache.places <= 2 * GROUP


def test_rows_that_are_dropped_free_their_memory() -> None:
    engine = TransformersEngine(tiny_model("llama", torch.float64), tiny_tokenizer(), "tiny")
    with torch.inference_mode():
        for decoder in (engine._decoder, engine._modules):
            state, _ = decoder.prefill(PROMPT)
            state = state.rearrange([0] * 64)
            decoder.step(state, torch.arange(64) + 60)
            many = held(state)
            state = state.rearrange([5, 9])
            decoder.step(state, torch.tensor([60, 61]))
            assert held(state) < many / 8


def held(state: State) -> int:
    """Bytes of the rows' own keys and values."""
    if isinstance(state, GroupedCache):
        return state._keys.nbytes + state._values.nbytes
    return sum(la._suffix_keys.nbytes + la._suffix_values.nbytes for la in state.layers)


@pytest.mark.parametrize("row", range(3))
def test_a_fork_holds_the_row(both: list[tuple[list[Tensor], State]], row: int) -> None:
    forks = [state.fork(row) for _, state in both]
    for got, expected in zip(forks[0].layers, forks[1].layers, strict=True):
        torch.testing.assert_close(got.keys, expected.keys, rtol=0, atol=1e-6)
        torch.testing.assert_close(got.values, expected.values, rtol=0, atol=1e-6)


def test_a_fork_has_memory_of_its_own() -> None:
    engine = TransformersEngine(tiny_model("llama", torch.float64), tiny_tokenizer(), "tiny")
    with torch.inference_mode():
        for decoder in (engine._decoder, engine._modules):
            state, _ = decoder.prefill(PROMPT)
            state = state.rearrange([0, 0])
            decoder.step(state, torch.tensor([70, 71]))
            fork = state.fork(0)
            before = [layer.keys.clone() for layer in fork.layers]
            decoder.step(state, torch.tensor([71, 72]))
            assert all(torch.equal(layer.keys, keys) for layer, keys in zip(fork.layers, before, strict=True))
            assert fork.get_seq_length() == len(PROMPT) + 1
