"""Rows that come and go: the lean step's cache gives the logits of the model's own modules on the shared prompt."""

import numpy as np
import pytest
import torch
from marks import needs_mkl
from tiny import tiny_model, tiny_tokenizer
from torch import Tensor

from nad.engines.transformers.cpu.grouped_cache import GROUP, RowCache
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


def run(engine: TransformersEngine) -> tuple[list[Tensor], SharedPromptCache | RowCache]:
    with torch.inference_mode():
        prefilled, _ = engine.prefill(PROMPT)
        cache = engine.open_rows(prefilled)
        logits = []
        for parents, tokens in steps():
            cache.rearrange(parents)
            logits.append(engine.decode_step(cache, tokens))
    return logits, cache


@pytest.fixture(scope="module")
def both() -> list[tuple[list[Tensor], SharedPromptCache | RowCache]]:
    engine = TransformersEngine(tiny_model("llama", torch.float64), tiny_tokenizer(), "tiny")
    assert engine._lean is not None
    lean = run(engine)
    engine._lean = None
    return [lean, run(engine)]


def test_rows_come_and_go(both: list[tuple[list[Tensor], SharedPromptCache | RowCache]]) -> None:
    (lean, cache), (own, plain) = both
    assert isinstance(cache, RowCache)
    assert isinstance(plain, SharedPromptCache)
    assert cache.get_seq_length() == plain.get_seq_length() == len(PROMPT) + len(ROWS)
    for got, expected in zip(lean, own, strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


@needs_mkl
def test_packed_weights_are_taken_from_four_rows_on() -> None:
    engine = TransformersEngine(tiny_model("llama", torch.float32), tiny_tokenizer(), "tiny")
    step = engine._lean
    assert step is not None
    lean, _ = run(engine)
    assert step._prepared.keys() == {False, True}
    engine._lean = None
    for got, expected in zip(lean, run(engine)[0], strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)


def test_places_follow_the_rows(both: list[tuple[list[Tensor], SharedPromptCache | RowCache]]) -> None:
    """Behind 64 rows three are left, and few places beside them."""
    cache = both[0][1]
    assert isinstance(cache, RowCache)
    assert 3 <= cache.places <= 2 * GROUP


@pytest.mark.parametrize("row", range(3))
def test_a_fork_holds_the_row(both: list[tuple[list[Tensor], SharedPromptCache | RowCache]], row: int) -> None:
    forks = [cache.fork(row) for _, cache in both]
    for got, expected in zip(forks[0].layers, forks[1].layers, strict=True):
        torch.testing.assert_close(got.keys, expected.keys, rtol=0, atol=1e-6)
        torch.testing.assert_close(got.values, expected.values, rtol=0, atol=1e-6)


def test_a_fork_has_memory_of_its_own() -> None:
    engine = TransformersEngine(tiny_model("llama", torch.float64), tiny_tokenizer(), "tiny")
    with torch.inference_mode():
        prefilled, _ = engine.prefill(PROMPT)
        cache = engine.open_rows(prefilled)
        engine.decode_step(cache, np.array([70]))
        fork = cache.fork(0)
        before = [layer.keys.clone() for layer in fork.layers]
        engine.decode_step(cache, np.array([71]))
    assert all(torch.equal(layer.keys, keys) for layer, keys in zip(fork.layers, before, strict=True))
    assert fork.get_seq_length() == len(PROMPT) + 1
