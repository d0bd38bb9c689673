"""Models that cannot be loaded: each is named in one line, with what to do, before anything is read or run."""

import io
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import END, HIDDEN, LAYERS, NEURONS, WINDOW, tiny_model, tiny_tokenizer
from tiny_gguf import tiny_gguf
from torch import nn
from transformers import (
    BertConfig,
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MixtralConfig,
    MT5Config,
)
from transformers.utils import logging as transformers_logging

from nad.engines import load_engine
from nad.engines.transformers.engine import TransformersEngine
from nad.engines.transformers.loading import choose_device
from nad.errors import NadError, UsageError
from nad.neurons.activation import ActivationRule

RULE = ActivationRule(k=30, per_layer=16)
TEXT = {
    "vocab_size": 264,
    "hidden_size": HIDDEN,
    "intermediate_size": NEURONS,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": WINDOW,
    "bos_token_id": None,
    "eos_token_id": END,
    "pad_token_id": None,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
}


def saved(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return saved(tiny_model("llama"), tmp_path / "tiny")


def configure(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def refusal(model: Path, **options: Any) -> str:
    """The one line that says why it cannot be loaded."""
    with pytest.raises(NadError) as caught:
        load_engine(str(model), **options)
    text = str(caught.value)
    assert "\n" not in text
    assert "damaged or incomplete" not in text
    return text


@pytest.mark.parametrize(
    ("changes", "method"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "gptq"),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "awq"),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "bitsandbytes"),
        ({"quantization_config": {"quant_method": "compressed-tensors"}}, "compressed-tensors"),
        ({"quantization_config": {"quant_method": "fp8"}}, "fp8"),
        ({"compression_config": {"format": "x"}}, "compressed"),
        ({"quantization": {"group_size": 64, "bits": 4}}, "mlx"),
        ({"text_config": {"quantization_config": {"quant_method": "gptq"}}}, "gptq"),
    ],
)
def test_quantised_weights(folder: Path, changes: dict[str, Any], method: str) -> None:
    configure(folder, **changes)
    text = refusal(folder)
    assert f"its weights are quantised ({method})" in text
    assert "take the model it was made from, or a .gguf" in text


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"model_type": "llama9"}, "does not know its type 'llama9'; if a newer one does: pip install --upgrade"),
        ({"model_type": None}, "names no model_type"),
        ({"num_hidden_layers": 1_000_000}, "asks for 1,000,000 layers (num_hidden_layers)"),
        ({"num_hidden_layers": 10**15}, "layers (num_hidden_layers)"),
        ({"model_type": "gpt2", "n_layer": 1_000_000}, "asks for 1,000,000 layers (n_layer)"),
        ({"vision_config": {"depth": 2_000_000}}, "asks for 2,000,000 layers (depth)"),
    ],
)
def test_configurations(folder: Path, changes: dict[str, Any], part: str) -> None:
    configure(folder, **changes)
    begin = time.perf_counter()
    assert part in refusal(folder)
    assert time.perf_counter() - begin < 5


def test_the_layers_of_a_gguf_file(tmp_path: Path) -> None:
    text = refusal(tiny_gguf(tmp_path / "m.gguf", layers=1_000_000))
    assert "asks for 1,000,000 layers (block_count)" in text


@pytest.mark.parametrize("content", ["{", "[]", "null", "\x00", "[" * 100_000])
def test_a_damaged_generation_config_is_said(folder: Path, content: str) -> None:
    (folder / "generation_config.json").write_text(content)
    assert "generation_config.json is damaged" in refusal(folder)


CODE = """
print("printed by the model's own code")
open({mark!r}, "w").close()
from transformers import LlamaConfig, LlamaForCausalLM

class OwnConfig(LlamaConfig):
    model_type = "own"

class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""


@pytest.fixture
def own_code(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model with code of its own, which leaves a mark when it runs."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    (folder / "own.py").write_text(CODE.format(mark=str(tmp_path / "ran")))
    auto = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    configure(folder, model_type="own", architectures=["OwnModel"], auto_map=auto)
    return folder


def test_code_of_the_models_own_is_not_run_nor_asked_about(
    own_code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\ny\ny\n"))
    assert "needs Python code of its own" in refusal(own_code)
    assert "--trust-remote-code" in refusal(own_code)
    assert not (tmp_path / "ran").exists()
    assert capfd.readouterr() == ("", "")


def test_code_that_is_trusted_runs_and_prints_nothing(
    own_code: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    engine = load_engine(str(own_code), trust_remote_code=True, report=said.append)
    assert (tmp_path / "ran").exists()
    assert engine.layers == LAYERS
    assert capfd.readouterr() == ("", "")
    assert "printed by the model's own code" in said


def test_code_beside_a_known_type_is_left_alone(own_code: Path, tmp_path: Path) -> None:
    configure(own_code, model_type="llama")
    assert load_engine(str(own_code)).layers == LAYERS
    assert not (tmp_path / "ran").exists()


def test_a_tokenizer_with_code_of_its_own(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = folder / "tokenizer_config.json"
    own = {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": ["own.OwnTokenizer", None]}}
    file.write_text(json.dumps({**json.loads(file.read_text()), **own}))
    (folder / "own.py").write_text("raise SystemExit")
    assert "needs Python code of its own" in refusal(folder)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("config", [MT5Config(vocab_size=264, d_model=32), CLIPVisionConfig(**VISION)])
def test_models_that_write_no_text(config: Any, tmp_path: Path) -> None:
    config.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    assert f"no model of the type '{config.model_type}' that writes text from text alone" in refusal(tmp_path)


def test_a_model_that_fills_gaps_has_no_gated_layers(tmp_path: Path) -> None:
    saved(tiny_bert(), tmp_path)
    assert "has no gated feed-forward layer" in refusal(tmp_path)


def tiny_bert() -> Any:
    from transformers import BertLMHeadModel

    return BertLMHeadModel(BertConfig(vocab_size=264, hidden_size=32, num_hidden_layers=2, num_attention_heads=4))


@pytest.mark.parametrize("tied", [False, True])
def test_the_text_model_of_one_that_also_sees(tied: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = LlavaConfig(
        text_config=LlamaConfig(**TEXT),
        vision_config=CLIPVisionConfig(**VISION),
        image_token_index=263,
        tie_word_embeddings=tied,
    )
    whole = LlavaForConditionalGeneration(config).eval()
    engine = load_engine(str(saved(whole, tmp_path)), dtype="float32")
    tokens = torch.tensor([[1, 2, 3, 4]])
    assert isinstance(engine, TransformersEngine)
    with torch.inference_mode():
        torch.testing.assert_close(engine._model(tokens).logits, whole(input_ids=tokens).logits)


def test_a_whole_that_also_sees_is_read_where_it_reads_text(tmp_path: Path) -> None:
    """Both towers have as many layers."""
    config = Gemma3Config(text_config=TEXT, vision_config={**VISION, "model_type": "siglip_vision_model"})
    whole = Gemma3ForConditionalGeneration(config)
    engine = load_engine(str(saved(whole, tmp_path)))
    assert engine.neurons == LAYERS * NEURONS
    assert len(engine.score((1, 2), (3, 4), RULE).tokens) == 2


def test_convolutions_are_no_experts() -> None:
    model = tiny_model("llama")
    for layer in model.model.layers:
        layer.short_conv = nn.Conv1d(HIDDEN, HIDDEN, 3)
        layer.own_kernel = nn.Parameter(torch.zeros(HIDDEN, 1, 4))
        layer.gates_of_heads = nn.Parameter(torch.zeros(4, 8, 8))
    assert TransformersEngine(model, tiny_tokenizer(), "tiny").neurons == LAYERS * NEURONS


def test_experts_are_still_experts() -> None:
    config = MixtralConfig(**{**TEXT, "num_local_experts": 4})
    from transformers import MixtralForCausalLM

    assert TransformersEngine(MixtralForCausalLM(config).eval(), tiny_tokenizer(), "tiny").experts == 4


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"),
        OSError(12, "Cannot allocate memory"),
    ],
)
def test_memory_that_runs_out(folder: Path, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr("nad.engines.transformers.auto_classes.AutoModelForCausalLM.from_pretrained", fail)
    assert "cannot load the model tiny: out of memory; take a smaller model or a smaller --dtype" in refusal(folder)


def test_a_package_that_is_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise ImportError("This tokenizer needs tiktoken: pip install tiktoken")

    monkeypatch.setattr("nad.engines.transformers.auto_classes.AutoTokenizer.from_pretrained", fail)
    assert "a package it needs is not installed (This tokenizer needs tiktoken" in refusal(folder)


def test_a_folder_without_a_tokenizer_is_no_missing_package(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    assert "its tokenizer cannot be read; it needs tokenizer.json, or tokenizer.model and" in refusal(folder)


def test_the_device_that_computes_nothing() -> None:
    with pytest.raises(UsageError, match="device 'meta' is not available here; allowed: auto, cpu"):
        choose_device("meta")


def test_loading_is_quiet_and_leaves_other_libraries_as_they_were(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Weights that belong nowhere make transformers print a table."""
    weights = folder / "model.safetensors"
    save_file({**load_file(weights), "model.nowhere": torch.zeros(3)}, weights, metadata={"format": "pt"})
    said: list[str] = []
    _warn_while_loading(monkeypatch, "something is odd\nwith it")
    transformers_logging.set_verbosity_warning()
    transformers_logging.enable_progress_bar()
    try:
        load_engine(str(folder), report=said.append)
        assert transformers_logging.get_verbosity() == transformers_logging.WARNING
        assert transformers_logging.is_progress_bar_enabled()
    finally:
        transformers_logging.disable_progress_bar()
    assert capfd.readouterr() == ("", "")
    assert "something is odd with it" in said


def _warn_while_loading(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    from nad.engines.transformers.auto_classes import AutoTokenizer

    stock: Callable[..., Any] = AutoTokenizer.from_pretrained

    def warn(*args: Any, **options: Any) -> Any:
        warnings.warn(text, stacklevel=2)
        return stock(*args, **options)

    monkeypatch.setattr("nad.engines.transformers.auto_classes.AutoTokenizer.from_pretrained", warn)


def test_names_and_digests_of_local_models(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = load_engine(str(folder))
    monkeypatch.chdir(folder)
    here = load_engine(".")
    folder.rename(tmp_path / "moved")
    moved = load_engine(f"{tmp_path}/moved/")
    assert (one.name, here.name, moved.name) == ("tiny", "tiny", "moved")
    assert one.weights_digest == here.weights_digest == moved.weights_digest
    other = load_engine(str(saved(tiny_model("llama", seed=1), tmp_path / "other")))
    assert other.weights_digest != one.weights_digest
    assert load_engine(str(tiny_gguf(tmp_path / "m.gguf"))).name == "m.gguf"


def test_soft_caps_are_kept_where_a_version_would_leave_them_out() -> None:
    model = tiny_model("gemma2")
    model.config._attn_implementation = "sdpa"
    TransformersEngine(model, tiny_tokenizer(), "tiny")
    assert model.config._attn_implementation == "eager"
