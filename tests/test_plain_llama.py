"""The plain Llama gives what transformers' model gives, and is taken only where it is known to."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracle import activated, contributions
from safetensors.torch import load_file, save_file
from tiny import tiny_model, tiny_tokenizer
from torch import Tensor

from nad.activation import ActivationRule
from nad.engines.plain_llama import PlainLlama, plain_llama, read_plain_llama
from nad.engines.stock import read_stock
from nad.engines.transformers import TransformersEngine, load_transformers
from nad.models import ModelFiles
from nad.stopping import At
from nad.types import SamplingParams

PROMPT = (257, *range(60, 80), 258)
DTYPES = [torch.float64, torch.float32, torch.bfloat16]


@pytest.fixture(scope="module", params=["llama", "llama-tied"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(request.param, tmp_path_factory.mktemp(request.param))


def saved(family: str, folder: Path, **changes: Any) -> Path:
    tiny_model(family, **changes).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def engines(folder: Path, dtype: torch.dtype) -> tuple[TransformersEngine, TransformersEngine]:
    empty = plain_llama(folder)
    assert empty is not None
    plain = read_plain_llama(empty, folder, dtype)
    stock = read_stock(ModelFiles("tiny", str(folder)), dtype)
    ours, theirs = (TransformersEngine(model.eval(), tokenizer, "tiny") for model, tokenizer in (plain, stock))
    return ours, theirs


def assert_close(got: Tensor, expected: Tensor) -> None:
    assert got.dtype == expected.dtype
    # In float64 the stock attention takes its softmax in float32.
    precision = max(torch.finfo(dtype).eps for dtype in (got.dtype, torch.float32))
    assert (got - expected).abs().max() <= 8 * precision * expected.abs().max()


@pytest.mark.parametrize("lean", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_logits_and_gates_are_those_of_transformers(folder: Path, dtype: torch.dtype, lean: bool) -> None:
    pair = engines(folder, dtype)
    seen: list[list[Tensor]] = [[], []]
    for engine, logits in zip(pair, seen, strict=True):
        assert engine._lean is not None
        assert engine.notes == ()
        if not lean:
            engine._lean = None
        with torch.inference_mode():
            prefilled, last = engine.prefill(PROMPT, record=True)
            logits += [last, *engine.gates(1)]
            cache = engine.open_rows(prefilled)
            for parents, tokens in zip(([0, 0, 0], [2, 0, 1]), ([100, 101, 102], [7, 8, 7]), strict=True):
                cache.rearrange(parents)
                logits += [engine.decode_step(cache, np.array(tokens), record=True), *engine.gates(3)]
    for got, expected in zip(*seen, strict=True):
        assert_close(got, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_prompt_in_pieces_gives_the_logits_of_transformers(
    folder: Path, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nad.engines.transformers._PREFILL_TOKENS", 8)
    ours, theirs = engines(folder, dtype)
    with torch.inference_mode():
        assert_close(ours.prefill(PROMPT)[1], theirs.prefill(PROMPT)[1])


def test_samples_continuations_and_scores_are_those_of_transformers(folder: Path) -> None:
    ours, theirs = engines(folder, torch.float32)
    assert (ours.eos, ours.context_window, ours.dtype) == (theirs.eos, theirs.context_window, theirs.dtype)
    assert (ours.layers, ours.neurons) == (theirs.layers, theirs.neurons)
    prompt = ours.encode("abc")
    assert prompt == theirs.encode("abc")
    params, rule = SamplingParams(max_tokens=24), ActivationRule(k=30, per_layer=16)
    groups = [engine.sample(prompt, 6, params, At(12), rule) for engine in (ours, theirs)]
    for one, other in zip(*(group.completions for group in groups), strict=True):
        assert (one.tokens, one.text) == (other.tokens, other.text)
        assert one.activations.neuron.tolist() == other.activations.neuron.tolist()
        assert one.activations.first_token.tolist() == other.activations.first_token.tolist()
    winners = [group.completions[0] for group in groups]
    written = [list(e.extend(prompt, w, params)) for e, w in zip((ours, theirs), winners, strict=True)]
    assert len(written[0]) == 12
    assert written[0] == written[1]
    scores = [engine.score(prompt, winners[0].tokens, rule).activations.neuron for engine in (ours, theirs)]
    assert scores[0].tolist() == scores[1].tolist()


@pytest.mark.parametrize("family", ["llama-tied", "qwen2"])
def test_weights_begin_where_cache_lines_do(family: str, tmp_path: Path) -> None:
    folder = saved(family, tmp_path)
    engine = load_transformers(str(folder), dtype="float32")
    assert isinstance(engine._model, PlainLlama) == (family == "llama-tied")
    weights = dict(engine._model.named_parameters())
    assert all(weight.data_ptr() % 64 == 0 for weight in weights.values())
    for name, held in load_file(folder / "model.safetensors").items():
        assert torch.equal(weights[name], held)
    tied = engine._model.lm_head.weight.data_ptr() == engine._model.get_decoder().embed_tokens.weight.data_ptr()
    assert tied == (family == "llama-tied")


def test_sets_equal_the_oracle(tmp_path: Path) -> None:
    engine = load_transformers(str(saved("llama", tmp_path)), dtype="float32")
    assert isinstance(engine._model, PlainLlama)
    group = engine.sample(PROMPT, 4, SamplingParams(max_tokens=10), At(10), ActivationRule(k=30, per_layer=16))
    model = tiny_model("llama", torch.float64)
    for completion in group.completions:
        expected = activated(contributions(model, PROMPT, completion.tokens, False, False), "top_k", 30, 16, 5)
        assert completion.activations.neuron.tolist() == sorted(expected)
        assert completion.activations.first_token.tolist() == [expected[neuron][0] for neuron in sorted(expected)]


def edited(folder: Path, file: str, change: Callable[[dict[str, Any]], Any]) -> None:
    settings = json.loads((folder / file).read_text())
    change(settings)
    (folder / file).write_text(json.dumps(settings))


def reweighted(folder: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


LONG_ROPE = {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}
NOT_PLAIN: dict[str, Callable[[Path], Any]] = {
    "another family": lambda f: edited(f, "config.json", lambda c: c.update(model_type="mistral")),
    "another task": lambda f: edited(
        f, "config.json", lambda c: c.update(architectures=["LlamaForTokenClassification"])
    ),
    "biases": lambda f: edited(f, "config.json", lambda c: c.update(attention_bias=True)),
    "another activation": lambda f: edited(f, "config.json", lambda c: c.update(hidden_act="gelu")),
    "scaled positions": lambda f: edited(f, "config.json", lambda c: c.update(rope_parameters=LONG_ROPE)),
    "turned in part": lambda f: edited(
        f, "config.json", lambda c: c["rope_parameters"].update(partial_rotary_factor=1)
    ),
    "an unknown setting": lambda f: edited(f, "config.json", lambda c: c.update(logit_scale=2.0)),
    "packed weights": lambda f: edited(f, "config.json", lambda c: c.update(quantization_config={"bits": 4})),
    "a missing setting": lambda f: edited(f, "config.json", lambda c: c.pop("rms_norm_eps")),
    "a setting of another type": lambda f: edited(f, "config.json", lambda c: c.update(hidden_size="wide")),
    "a tokenizer of its own": lambda f: edited(
        f, "tokenizer_config.json", lambda c: c.update(tokenizer_class="LlamaTokenizer")
    ),
    "tokenizer code": lambda f: edited(
        f, "tokenizer_config.json", lambda c: c.update(auto_map={"AutoTokenizer": "a.B"})
    ),
    "an adapter beside it": lambda f: (f / "adapter_config.json").write_text("{}"),
    "no generation settings": lambda f: (f / "generation_config.json").unlink(),
    "damaged settings": lambda f: (f / "config.json").write_text("{"),
    "no weights": lambda f: (f / "model.safetensors").unlink(),
    "cut weights": lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-9]),
    "a missing tensor": lambda f: reweighted(f, lambda w: w.pop("model.norm.weight")),
    "one tensor more": lambda f: reweighted(f, lambda w: w.update(more=torch.zeros(3))),
    "a tensor of another shape": lambda f: reweighted(f, lambda w: w.update({"model.norm.weight": torch.ones(31)})),
}


@pytest.mark.parametrize("what", NOT_PLAIN)
def test_what_is_not_plain_is_left_to_transformers(what: str, tmp_path: Path) -> None:
    folder = saved("llama", tmp_path)
    assert plain_llama(folder) is not None
    NOT_PLAIN[what](folder)
    assert plain_llama(folder) is None


def test_a_start_imports_no_model_classes(tmp_path: Path) -> None:
    saved("llama", tmp_path)
    heavy = ["transformers.modeling_utils", "torch._dynamo", "torch.distributed.tensor", "sympy"]
    command = ["generate", "abc", "--model", str(tmp_path), "-n", "2", "--stop-at", "2", "--max-tokens", "4"]
    code = f"import sys; from nad.cli import main; print(main({command!r}), [m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"
