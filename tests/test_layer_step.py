"""TorchScript and Python run the same functions: which of them does must not be seen in the numbers."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from test_lean import PLAIN, decoded
from tiny import tiny_model, tiny_tokenizer

from nad import layer_step
from nad.engines.transformers import TransformersEngine


@pytest.fixture
def forget() -> Iterator[None]:
    """What one test made of the functions is not left to another."""
    layer_step.halves.cache_clear()
    yield
    layer_step.halves.cache_clear()


def no_more(function: Any) -> Any:
    raise RuntimeError("torch.jit.script is gone")


def test_this_torch_runs_them_as_torchscript() -> None:
    both = layer_step.halves(layer_step.plain_product, scripted=True)
    assert [type(function) for function in both] == [torch.jit.ScriptFunction] * 2


@pytest.mark.usefixtures("forget")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", PLAIN)
def test_without_torchscript_the_numbers_are_the_same(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    family, changes = PLAIN[name]
    engine = TransformersEngine(tiny_model(family, dtype, **changes), tiny_tokenizer(), "tiny")
    assert engine._lean is not None
    scripted = decoded(engine)
    layer_step.halves.cache_clear()
    engine._lean._prepared.clear()
    monkeypatch.setattr(torch.jit, "script", no_more)
    python = decoded(engine)
    both = layer_step.halves(layer_step.plain_product, scripted=True)
    assert not any(isinstance(function, torch.jit.ScriptFunction) for function in both)
    assert all(torch.equal(a, b) for a, b in zip(scripted[0], python[0], strict=True))
    assert all(
        torch.equal(a, b) for s, p in zip(scripted[1], python[1], strict=True) for a, b in zip(s, p, strict=True)
    )


def test_attention_reads_the_prompt_and_its_own_row() -> None:
    """Row by row, with the softmax written out, in float64."""
    torch.manual_seed(0)
    heads, groups, group, each, dim, prompt, suffix = 2, 3, 4, 3, 5, 7, 6
    places = groups * group
    query = torch.randn(heads, places, each, dim, dtype=torch.float64)
    prompt_keys, prompt_values = (torch.randn(heads, prompt, dim, dtype=torch.float64) for _ in range(2))
    keys, values = (torch.randn(heads, places, suffix, dim, dtype=torch.float64) for _ in range(2))
    side_by_side = keys.view(heads * groups, group, suffix, dim).permute(0, 3, 2, 1).flatten(2)
    got = layer_step.attend(query, prompt_keys.mT, prompt_values, side_by_side, values.flatten(0, 1))
    for h in range(heads):
        for place in range(places):
            read = torch.cat([prompt_keys[h], keys[h, place]]), torch.cat([prompt_values[h], values[h, place]])
            weights = (query[h, place] @ read[0].T).exp()
            expected = weights @ read[1] / weights.sum(dim=1, keepdim=True)
            torch.testing.assert_close(got[h, place], expected.flatten(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_norm_is_rounded_once(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(9, 64, dtype=dtype), torch.randn(64)
    exact = x.double() * weight.double() / (x.double().pow(2).mean(dim=1, keepdim=True) + 1e-5).sqrt()
    got = layer_step.rms_norm(x, weight, torch.tensor(1e-5))
    assert got.dtype == dtype
    torch.testing.assert_close(got.double(), exact, rtol=torch.finfo(dtype).eps / 2 + 1e-6, atol=1e-7)
