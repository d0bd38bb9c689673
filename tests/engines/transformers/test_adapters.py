"""LoRA adapters: beside the weights or alone, merged into them and said, or refused with what to install."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import tiny_model, tiny_tokenizer
from tiny_gguf import tiny_gguf

from nad.engines import load_engine
from nad.engines.transformers.engine import TransformersEngine
from nad.errors import NadError, UsageError

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # peft's, of transformers
TOKENS = torch.tensor([[1, 2, 3, 4]])


def base_at(folder: Path) -> Path:
    tiny_model("llama").save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def adapted(folder: Path, base: str, **changes: Any) -> torch.Tensor:
    """Write an adapter to the folder; the logits of the model it makes."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(3)
    options = {"r": 2, "target_modules": ["down_proj", "q_proj"], "init_lora_weights": False, **changes}
    model = peft.get_peft_model(tiny_model("llama"), peft.LoraConfig(task_type="CAUSAL_LM", **options))
    model.save_pretrained(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": base}))
    with torch.inference_mode():
        return model.eval()(TOKENS).logits


def logits(engine: Any) -> torch.Tensor:
    assert isinstance(engine, TransformersEngine)
    with torch.inference_mode():
        return engine._model(TOKENS).logits


@pytest.mark.parametrize("relative", [False, True])
def test_an_adapter_alone(relative: bool, tmp_path: Path) -> None:
    base, folder = base_at(tmp_path / "base"), tmp_path / "tuned"
    expected = adapted(folder, "../base" if relative else str(base))
    engine = load_engine(str(folder), dtype="float32", fast_cpu=False)
    torch.testing.assert_close(logits(engine), expected, rtol=1e-4, atol=1e-4)
    assert engine.name == "tuned"
    assert "the adapter tuned is merged into the weights of base" in engine.notes
    assert not any("lora" in name for name, _ in engine._model.named_parameters())  # type: ignore[attr-defined]
    plain = load_engine(str(base), dtype="float32", fast_cpu=False)
    assert not torch.allclose(logits(plain), expected, atol=1e-2)
    assert plain.weights_digest != engine.weights_digest


def test_an_adapter_beside_the_weights(tmp_path: Path) -> None:
    folder = base_at(tmp_path / "both")
    expected = adapted(folder, "somewhere/else")
    engine = load_engine(str(folder), dtype="float32", fast_cpu=False)
    torch.testing.assert_close(logits(engine), expected, rtol=1e-4, atol=1e-4)
    assert "the adapter both is merged into the weights of both" in engine.notes


def test_an_adapter_beside_a_gguf_file_is_left_out_and_said(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "x/y"}))
    engine = load_engine(str(tiny_gguf(tmp_path / "m.gguf")))
    assert engine.notes[0].startswith("the adapter beside m.gguf is left out")


def test_eq_1_reads_the_merged_weights(tmp_path: Path) -> None:
    folder = base_at(tmp_path / "both")
    adapted(folder, "")
    engine = load_engine(str(folder), dtype="float32")
    assert isinstance(engine, TransformersEngine)
    own = tiny_model("llama").model.layers[0].mlp.down_proj.weight
    assert not torch.allclose(engine._ffns.ffns[0].down.weight, own, atol=1e-3)


def test_without_peft_it_is_refused_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = base_at(tmp_path / "both")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "x/y"}))
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UsageError, match=r'both has an adapter .*: pip install "nad\[adapters\]"'):
        load_engine(str(folder))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "adapter_config.json is damaged or names no base_model_name_or_path"),
        ("{}", "adapter_config.json is damaged or names no base_model_name_or_path"),
        ('{"base_model_name_or_path": null}', "names no base model"),
        ('{"base_model_name_or_path": "/no/such"}', "is an adapter of the model '/no/such', which is not here"),
    ],
)
def test_adapters_without_their_model(config: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(config)
    with pytest.raises(NadError, match=message):
        load_engine(str(tmp_path))


def test_an_adapter_without_weights(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    folder = base_at(tmp_path / "both")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "x/y"}))
    with pytest.raises(NadError, match=r"has adapter_config.json but no adapter_model.safetensors"):
        load_engine(str(folder))


def test_an_adapter_of_another_model(tmp_path: Path) -> None:
    folder = base_at(tmp_path / "both")
    adapted(folder, "")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "r": 4}))
    with pytest.raises(NadError, match=r"the adapter .*both does not fit the model .*both: "):
        load_engine(str(folder))


def test_an_adapter_with_weights_missing(tmp_path: Path) -> None:
    """They would count as zeros without a word."""
    folder = base_at(tmp_path / "both")
    adapted(folder, "")
    weights = load_file(folder / "adapter_model.safetensors")
    weights.pop(min(weights))
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NadError, match=r"the adapter .*both does not fit the model .*missing adapter keys"):
        load_engine(str(folder))


def test_an_adapter_that_has_no_weights_to_merge(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    folder = base_at(tmp_path / "both")
    model = peft.get_peft_model(
        tiny_model("llama"), peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    )
    model.save_pretrained(folder)
    with pytest.raises(NadError, match=r"\(PromptTuningConfig\) cannot be merged into weights"):
        load_engine(str(folder))
