"""Token draws by inversion against the exact nucleus, and the signals against their definitions."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nad.engines.transformers.token_draws import block_maxima, draw_tokens, largest_logits, token_signals, uniforms
from nad.errors import NadError


def logits_of(*probabilities: float) -> Tensor:
    return torch.tensor([probabilities], dtype=torch.float64).log()


def draw(logits: Tensor, uniform: Tensor, temperature: float = 1.0, top_p: float = 1.0) -> list[int]:
    row = torch.zeros(len(uniform), dtype=torch.long)
    return draw_tokens(logits, row, uniform, temperature, top_p).tolist()


def nucleus(logits: np.ndarray, temperature: float, top_p: float) -> np.ndarray:
    """The exact distribution over tokens: the smallest set of most likely ones that reaches top_p, renormalised."""
    p = np.exp((logits - logits.max()) / temperature)
    p /= p.sum()
    order = np.argsort(-p, kind="stable")
    cut = int(np.argmax(np.cumsum(p[order]) >= top_p * (1 - 1e-12))) + 1
    kept = np.zeros_like(p)
    kept[order[:cut]] = p[order[:cut]]
    return kept / kept.sum()


def test_a_uniform_number_falls_into_its_tokens_share() -> None:
    logits = logits_of(0.2, 0.5, 0.3)
    uniform = torch.tensor([0.0, 0.49, 0.51, 0.79, 0.81, 0.999], dtype=torch.float64)
    assert draw(logits, uniform) == [1, 1, 2, 2, 0, 0]


def test_the_nucleus_is_the_smallest_set_that_reaches_top_p() -> None:
    logits = logits_of(0.2, 0.5, 0.3)
    uniform = torch.linspace(0, 0.999, 50, dtype=torch.float64)
    assert set(draw(logits, uniform, top_p=0.5)) == {1}
    assert set(draw(logits, uniform, top_p=0.51)) == {1, 2}
    assert set(draw(logits, uniform, top_p=0.81)) == {0, 1, 2}


def test_edges_of_the_shares_belong_to_the_next_token_and_the_edge_of_the_nucleus_to_it() -> None:
    """Halves and quarters are exact: a share is [low, high), and 0.5 alone reaches top_p = 0.5."""
    logits = logits_of(0.25, 0.5, 0.125, 0.125)
    uniform = torch.tensor([0.0, 0.5, 0.75], dtype=torch.float64)
    assert draw(logits, uniform)[:2] == [1, 0]
    assert draw(logits, uniform)[2] in (2, 3)
    assert draw(logits, uniform, top_p=0.5) == [1, 1, 1]


def test_samples_read_their_own_row() -> None:
    logits = torch.cat([logits_of(0.9, 0.1), logits_of(0.1, 0.9)])
    drawn = draw_tokens(logits, torch.tensor([1, 0, 1]), torch.zeros(3, dtype=torch.float64), 1.0, 1.0)
    assert drawn.tolist() == [1, 0, 1]


def test_a_draw_does_not_depend_on_the_other_rows() -> None:
    """Half precision has many equal logits, and a wide nucleus of one row must not change their order in another."""
    generator = torch.Generator().manual_seed(0)
    narrow = torch.randint(0, 8, (1, 49_152), generator=generator)
    narrow[0, torch.randperm(49_152, generator=generator)[:20]] = 24  # equally likely, and much more than the rest
    wide = torch.zeros(1, 49_152)
    uniform = torch.linspace(0, 0.999, 50, dtype=torch.float64)
    alone = draw_tokens(narrow.bfloat16(), torch.zeros(50, dtype=torch.long), uniform, 0.6, 0.9)
    both = torch.cat([wide, narrow]).bfloat16()
    beside = draw_tokens(both, torch.tensor([0, *[1] * 50]), torch.cat([uniform[-1:], uniform]), 0.6, 0.9)
    assert beside[1:].tolist() == alone.tolist()


def test_temperature_zero_takes_the_largest() -> None:
    assert draw(logits_of(0.2, 0.5, 0.3), torch.tensor([0.0, 0.99]), temperature=0.0) == [1, 1]


@pytest.mark.parametrize("vocabulary", [5, 300, 10_000])
@pytest.mark.parametrize("scale", [0.0, 0.3, 3.0])
@pytest.mark.parametrize("top_p", [0.3, 0.9, 0.999, 1.0])
def test_frequencies_on_a_grid_of_uniforms_are_the_nucleus(vocabulary: int, scale: float, top_p: float) -> None:
    """`scale` 0 is the widest nucleus there is; n evenly spaced uniforms meet each share to within 1/n."""
    n, temperature = 20_000, 0.6
    logits = scale * np.random.default_rng(vocabulary).standard_normal(vocabulary) + np.linspace(0, 1e-6, vocabulary)
    uniform = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    drawn = draw(torch.from_numpy(logits)[None], uniform, temperature, top_p)
    frequency = np.bincount(drawn, minlength=vocabulary) / n
    expected = nucleus(logits, temperature, top_p)
    # Rounding may decide whether the token at the edge of the nucleus is in: its share moves to the others.
    slack = 1 / n + np.sort(expected[expected > 0])[0]
    assert np.abs(frequency - expected).max() <= slack
    assert (expected[frequency > 0] > 0).mean() > 0.999


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.2, 0.9, 1.0]), st.floats(0, 0.999999))
@settings(max_examples=50)
def test_half_precision_draws_from_the_nucleus_of_its_logits(seed: int, top_p: float, u: float) -> None:
    """In half precision itself the nucleus would be off by a tenth of its probability."""
    half = torch.from_numpy(np.random.default_rng(seed).standard_normal((1, 3000)) * 4 + 20).bfloat16()
    token, last = draw(half, torch.tensor([u, 1 - 1e-9], dtype=torch.float64), 0.6, top_p)
    logits = half.double().numpy()[0]
    edges = [logits[nucleus(logits, 0.6, mass) > 0].min() for mass in (top_p - 1e-5, min(1.0, top_p + 1e-5))]
    assert logits[token] >= edges[1]
    assert edges[1] <= logits[last] <= edges[0]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("temperature", [0.0, 0.6])
def test_logits_that_are_not_numbers(bad: float, temperature: float) -> None:
    with pytest.raises(NadError, match="not finite"):
        draw(torch.tensor([[0.0, bad, 1.0]]), torch.tensor([0.5]), temperature)


def test_uniforms_depend_on_seed_sample_and_position_alone() -> None:
    many = uniforms(3, np.arange(5), 0, 20)
    assert np.array_equal(uniforms(3, np.array([4, 2]), 7, 15), many[[4, 2], 7:15])
    assert np.array_equal(uniforms(3, np.array([1]), 0, 400)[:, :20], many[[1]])
    assert not np.array_equal(uniforms(4, np.arange(5), 0, 20), many)
    assert len(np.unique(many)) == many.size
    assert ((many >= 0) & (many < 1)).all()
    assert uniforms(2**64 - 1, np.array([0]), 0, 1).shape == (1, 1)


@pytest.mark.parametrize("vocabulary", [1, 31, 33, 1000, 8191, 8192])
@pytest.mark.parametrize("k", [1, 20, 64])
def test_largest_logits_are_those_of_a_full_sort(vocabulary: int, k: int) -> None:
    k = min(k, vocabulary)
    logits = torch.from_numpy(
        np.random.default_rng(k).permuted(np.tile(np.arange(vocabulary), (3, 1)), axis=1)
    ).double()
    values, tokens = largest_logits(logits, k, block_maxima(logits))
    assert values.tolist() == [list(range(vocabulary - 1, vocabulary - 1 - k, -1))] * 3
    assert torch.equal(logits.gather(1, tokens), values)


def test_signals_of_a_uniform_distribution() -> None:
    """log p = -log 4 everywhere; H = log 4; KL(uniform || p) = 0; minus the mean log-probability = log 4."""
    signals = token_signals(logits_of(0.25, 0.25, 0.25, 0.25), torch.tensor([0]), torch.tensor([2]))
    np.testing.assert_allclose(signals[:, 0], [-math.log(4), math.log(4), 0, math.log(4)], atol=1e-12)


def test_signals_follow_their_definitions() -> None:
    x = np.random.default_rng(0).standard_normal((3, 50)) * 2
    row, token = np.array([2, 0, 0]), np.array([7, 3, 49])
    found = token_signals(torch.from_numpy(x), torch.from_numpy(row), torch.from_numpy(token)).numpy()
    for column, (r, y) in enumerate(zip(row, token, strict=True)):
        p = np.exp(x[r]) / np.exp(x[r]).sum()
        expected = [
            math.log(p[y]),
            -(p * np.log(p)).sum(),
            (1 / 50 * np.log((1 / 50) / p)).sum(),
            -np.log(np.sort(p)[-20:]).mean(),
        ]
        np.testing.assert_allclose(found[:, column], expected, rtol=1e-9)
