"""Models and tokenizers through the automatic classes of transformers, which take seconds to import."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from nad.engines.model_files import DEFAULT, ModelFiles
from nad.errors import NadError


def read_stock(
    files: ModelFiles, dtype: torch.dtype, check: Callable[[nn.Module], None] = lambda empty: None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Any causal language model transformers knows, and its tokenizer; `check` sees the model without its weights."""
    gguf = {"gguf_file": files.gguf_file} if files.gguf_file else {}
    config = AutoConfig.from_pretrained(files.path, **gguf)
    with torch.device("meta"):
        check(AutoModelForCausalLM.from_config(config, dtype=dtype))
    options: dict[str, Any] = {"dtype": dtype, "config": config, **gguf}
    if files.gguf_file:
        from transformers import GgufConfig

        # Packed weights are no linear layers: the scores of Eq. 1 need W_out itself.
        options["quantization_config"] = GgufConfig(dequantize=True)
    model, found = AutoModelForCausalLM.from_pretrained(files.path, output_loading_info=True, **options)
    if found["missing_keys"]:
        # They would be left random.
        raise NadError(
            f"cannot load the model {files.name}: its files lack {len(found['missing_keys'])} tensors, "
            f"{min(found['missing_keys'])} among them; download them again"
        )
    return model, AutoTokenizer.from_pretrained(files.path, **gguf)


def unpack(gguf: Path, folder: Path) -> None:
    """Write a GGUF file as a folder of safetensors with its tokenizer; float32 keeps its weights exactly."""
    model, tokenizer = read_stock(ModelFiles(DEFAULT, str(gguf.parent), gguf.name), torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
