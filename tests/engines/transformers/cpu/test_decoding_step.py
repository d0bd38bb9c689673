"""The lean decoding step: the same logits and gates as the model's own forward pass, and only where it fits."""

from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from tiny import SLIDING, tiny_model, tiny_tokenizer
from torch import Tensor, nn

from nad.engines.transformers.cpu.decoding_step import LeanStep
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


def decoded(engine: TransformersEngine) -> tuple[list[Tensor], list[list[Tensor]]]:
    """Logits and gates of three rows behind the prompt, step by step; the rows change places on the way."""
    logits, gates = [], []
    with torch.inference_mode():
        prefilled, _ = engine.prefill(PROMPT)
        cache = engine.open_rows(prefilled)
        for parents, tokens in zip(([0, 0, 0], [2, 0, 1], [0, 0, 2]), STEPS, strict=True):
            cache.rearrange(parents)
            logits.append(engine.decode_step(cache, tokens, record=True))
            gates.append([ffn.gates(seen) for ffn, seen in zip(engine._ffns, engine.gates(3), strict=True)])
    return logits, gates


def engine_of(family: str, lean: bool, **changes: Any) -> TransformersEngine:
    engine = TransformersEngine(tiny_model(family, torch.float64, **changes), tiny_tokenizer(), "tiny")
    if not lean:
        engine._lean = None
    return engine


@pytest.mark.parametrize("name", PLAIN)
def test_logits_and_gates_are_those_of_the_model(name: str) -> None:
    family, changes = PLAIN[name]
    model = tiny_model(family, torch.float64, **changes)
    for part in model.modules():
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.normal_(part.bias)
    engine = TransformersEngine(model, tiny_tokenizer(), "tiny")
    assert engine._lean is not None
    lean = decoded(engine)
    engine._lean = None
    own = decoded(engine)
    for got, expected in zip(lean[0], own[0], strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)
    for of_step, expected_of_step in zip(lean[1], own[1], strict=True):
        for got, expected in zip(of_step, expected_of_step, strict=True):
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", PLAIN)
def test_half_precision_is_as_near_to_exact_numbers_as_the_modules_are(name: str, dtype: torch.dtype) -> None:
    family, changes = PLAIN[name]
    engine = TransformersEngine(tiny_model(family, dtype, **changes), tiny_tokenizer(), "tiny")
    exact = engine_of(family, lean=False, **changes)
    exact._model.load_state_dict(engine._model.state_dict())
    assert engine._lean is not None
    lean = decoded(engine)
    engine._lean = None
    own, expected = decoded(engine), decoded(exact)

    def errors(of: tuple[list[Tensor], list[list[Tensor]]]) -> Tensor:
        pairs = zip(chain(of[0], *of[1]), chain(expected[0], *expected[1]), strict=True)
        return torch.stack([(got - right).abs().max() / right.abs().max() for got, right in pairs])

    assert {t.dtype for t in lean[0]} == {dtype}
    assert errors(lean).mean() <= 1.5 * errors(own).mean()
    assert errors(own).mean() < 8 * torch.finfo(dtype).eps


def test_merging_keeps_the_models_weights() -> None:
    before = {name: p.clone() for name, p in tiny_model("qwen2", torch.float32).state_dict().items()}
    engine = TransformersEngine(tiny_model("qwen2", torch.float32), tiny_tokenizer(), "tiny")
    after = engine._model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    attention = engine._model.model.layers[0].self_attn
    assert attention.q_proj.weight.untyped_storage().data_ptr() == attention.v_proj.weight.untyped_storage().data_ptr()


@pytest.mark.parametrize("family", ["gemma2", "gemma3", "phi3", "glm4"])
def test_other_layers_run_through_their_own_modules(family: str) -> None:
    assert engine_of(family, lean=True)._lean is None


@pytest.mark.parametrize(
    "name", ["self_attn.k_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
)
def test_a_projection_somebody_replaced_runs_through_its_own_module(name: str) -> None:
    class Adapted(nn.Linear):
        pass

    model = tiny_model("llama", torch.float64)
    model.model.layers[1].get_submodule(name).__class__ = Adapted
    assert TransformersEngine(model, tiny_tokenizer(), "tiny")._lean is None


@pytest.mark.parametrize("part", ["mlp", "input_layernorm"])
def test_a_part_somebody_replaced_runs_through_its_own_module(part: str) -> None:
    model = tiny_model("llama", torch.float64)
    own = getattr(model.model.layers[1], part)
    own.__class__ = type("Adapted", (type(own),), {})
    assert TransformersEngine(model, tiny_tokenizer(), "tiny")._lean is None


def test_a_forward_pass_put_in_a_modules_place_is_taken() -> None:
    engine = engine_of("llama", lean=True)
    plain = decoded(engine)[0]
    mlp = engine._model.model.layers[1].mlp
    forward = mlp.forward
    mlp.forward = lambda x: forward(x) + 1.0
    replaced = decoded(engine)[0]
    assert not torch.allclose(plain[0], replaced[0])
    engine._lean = None
    for got, expected in zip(replaced, decoded(engine)[0], strict=True):
        assert torch.equal(got, expected)


def test_a_listener_on_a_skipped_module_is_heard() -> None:
    """Somebody steers the model: a hook that adds to a layer's output must count in decoding steps too."""
    engine = engine_of("llama", lean=True)
    plain = decoded(engine)[0]
    layer = engine._model.model.layers[1]
    handle = layer.register_forward_hook(lambda module, args, output: output + 1.0)
    steered = decoded(engine)[0]
    assert not torch.allclose(plain[0], steered[0])
    engine._lean = None
    for got, expected in zip(steered, decoded(engine)[0], strict=True):
        assert torch.equal(got, expected)
    handle.remove()


def test_a_listener_from_the_start_keeps_the_step_off_for_good() -> None:
    """It could not be checked against the model's own logits."""
    model = tiny_model("llama", torch.float64)
    handle = model.model.layers[0].register_forward_hook(lambda module, args, output: None)
    engine = TransformersEngine(model, tiny_tokenizer(), "tiny")
    handle.remove()
    assert engine._lean is None
    assert engine.notes == ()


def test_a_step_with_other_logits_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer that looks plain and is not: its residual stream is scaled."""
    model = tiny_model("llama", torch.float64)
    forward = type(model.model.layers[0]).forward
    monkeypatch.setattr(
        type(model.model.layers[0]), "forward", lambda self, x, **options: 1.5 * forward(self, x, **options)
    )
    engine = TransformersEngine(model, tiny_tokenizer(), "tiny")
    assert engine._lean is None
    assert engine.notes == ()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_step_that_computes_something_else_is_not_taken(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    turn = LeanStep._turn
    monkeypatch.setattr(LeanStep, "_turn", lambda self, x, position: turn(self, x, position + 7))
    model = tiny_model("llama", dtype)
    for layer in model.model.layers:  # attention of random weights looks nowhere in particular
        layer.self_attn.q_proj.weight.data *= 8
        layer.self_attn.k_proj.weight.data *= 8
    assert TransformersEngine(model, tiny_tokenizer(), "tiny")._lean is None
