"""The CPU's decoding step: the same logits and gates as the model's own forward pass, and only where it fits."""

from itertools import chain
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny import SLIDING, tiny_model, tiny_tokenizer
from torch import Tensor, nn

from nad.engines.transformers.cpu.decoding_step import CpuDecoder
from nad.engines.transformers.decoder import Decoder
from nad.engines.transformers.engine import TransformersEngine

PROMPT = (257, *range(60, 80), 258)
STEPS = np.array([[100, 101, 102], [7, 8, 7], [90, 91, 92]])
"""Tokens of three rows in three decoding steps."""

PLAIN: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama-biased": ("llama", {"attention_bias": True}),
    "mistral-window": ("mistral", {"sliding_window": 6}),
    "qwen2-window": ("qwen2", {"use_sliding_window": True, "sliding_window": 6, "layer_types": SLIDING}),
    "qwen3": ("qwen3", {}),
}


def decoded(engine: TransformersEngine, decoder: Decoder) -> tuple[list[Tensor], list[list[Tensor]]]:
    """Logits and gates of three rows after the prompt, step by step; the rows change places on the way."""
    logits, gates = [], []
    with torch.inference_mode():
        state, _ = decoder.prefill(PROMPT)
        for parents, tokens in zip(([0, 0, 0], [2, 0, 1], [0, 0, 2]), STEPS, strict=True):
            state = state.rearrange(parents)
            forward = decoder.step(state, torch.from_numpy(tokens), capture=True)
            assert forward.gates is not None
            logits.append(forward.logits)
            gates.append([ffn.gates(seen) for ffn, seen in zip(engine._ffns.ffns, forward.gates, strict=True)])
    return logits, gates


def engine_of(family: str, dtype: torch.dtype = torch.float64, **changes: Any) -> TransformersEngine:
    return TransformersEngine(tiny_model(family, dtype, **changes), tiny_tokenizer(), "tiny")


def is_fast(engine: TransformersEngine) -> bool:
    return isinstance(engine._decoder, CpuDecoder)


@pytest.mark.parametrize("name", PLAIN)
def test_logits_and_gates_are_those_of_the_model(name: str) -> None:
    family, changes = PLAIN[name]
    model = tiny_model(family, torch.float64, **changes)
    for part in model.modules():
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.normal_(part.bias)
    engine = TransformersEngine(model, tiny_tokenizer(), "tiny")
    assert is_fast(engine)
    fast, own = decoded(engine, engine._decoder), decoded(engine, engine._modules)
    for got, expected in zip(fast[0], own[0], strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)
    for of_step, expected_of_step in zip(fast[1], own[1], strict=True):
        for got, expected in zip(of_step, expected_of_step, strict=True):
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", PLAIN)
def test_half_precision_is_as_near_to_exact_numbers_as_the_modules_are(name: str, dtype: torch.dtype) -> None:
    family, changes = PLAIN[name]
    engine, exact = engine_of(family, dtype, **changes), engine_of(family, **changes)
    exact._model.load_state_dict(engine._model.state_dict())
    assert is_fast(engine)
    fast, own = decoded(engine, engine._decoder), decoded(engine, engine._modules)
    expected = decoded(exact, exact._modules)

    def errors(of: tuple[list[Tensor], list[list[Tensor]]]) -> Tensor:
        pairs = zip(chain(of[0], *of[1]), chain(expected[0], *expected[1]), strict=True)
        return torch.stack([(got - right).abs().max() / right.abs().max() for got, right in pairs])

    assert {t.dtype for t in fast[0]} == {dtype}
    assert errors(fast).mean() <= 1.5 * errors(own).mean()
    assert errors(own).mean() < 8 * torch.finfo(dtype).eps


def test_the_model_stays_as_it_is() -> None:
    before = tiny_model("qwen2", torch.float32)
    engine = TransformersEngine(tiny_model("qwen2", torch.float32), tiny_tokenizer(), "tiny")
    after = engine._model.state_dict()
    assert all(torch.equal(p, after[name]) for name, p in before.state_dict().items())
    assert [type(m) for m in engine._model.modules()] == [type(m) for m in before.modules()]


def test_one_option_turns_it_off_and_a_note_says_that_it_is_on() -> None:
    on, off = (TransformersEngine(tiny_model("llama"), tiny_tokenizer(), "tiny", fast_cpu=f) for f in (True, False))
    assert is_fast(on) and "--no-fast-cpu" in on.notes[0]
    assert not is_fast(off) and off.notes == ()


def test_without_memory_for_packed_copies_the_modules_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    free = SimpleNamespace(available=1000)
    monkeypatch.setattr("nad.engines.transformers.cpu.decoding_step.psutil.virtual_memory", lambda: free)
    assert not is_fast(engine_of("llama"))


@pytest.mark.parametrize("family", ["gemma2", "gemma3", "phi3", "glm4"])
def test_other_layers_run_through_their_own_modules(family: str) -> None:
    assert not is_fast(engine_of(family))


@pytest.mark.parametrize(
    "name", ["self_attn.k_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
)
def test_a_projection_somebody_replaced_runs_through_its_own_module(name: str) -> None:
    class Adapted(nn.Linear):
        pass

    model = tiny_model("llama", torch.float64)
    model.model.layers[1].get_submodule(name).__class__ = Adapted
    assert not is_fast(TransformersEngine(model, tiny_tokenizer(), "tiny"))


@pytest.mark.parametrize("part", ["mlp", "input_layernorm"])
def test_a_part_somebody_replaced_runs_through_its_own_module(part: str) -> None:
    model = tiny_model("llama", torch.float64)
    own = getattr(model.model.layers[1], part)
    own.__class__ = type("Adapted", (type(own),), {})
    assert not is_fast(TransformersEngine(model, tiny_tokenizer(), "tiny"))


def test_a_step_with_other_logits_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer that looks plain and is not: its residual stream is scaled."""
    model = tiny_model("llama", torch.float64)
    forward = type(model.model.layers[0]).forward
    monkeypatch.setattr(
        type(model.model.layers[0]), "forward", lambda self, x, **options: 1.5 * forward(self, x, **options)
    )
    engine = TransformersEngine(model, tiny_tokenizer(), "tiny")
    assert not is_fast(engine)
    assert engine.notes == ()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_step_that_computes_something_else_is_not_taken(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    turn = CpuDecoder._turn
    monkeypatch.setattr(CpuDecoder, "_turn", lambda self, x, position: turn(self, x, position + 7))
    model = tiny_model("llama", dtype)
    for layer in model.model.layers:  # attention of random weights looks nowhere in particular
        layer.self_attn.q_proj.weight.data *= 8
        layer.self_attn.k_proj.weight.data *= 8
    assert not is_fast(TransformersEngine(model, tiny_tokenizer(), "tiny"))
