"""Models and tokenizers through the automatic classes of transformers, which take seconds to import."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from nad.engines.gguf_header import end_of_turn_tokens, gguf_settings
from nad.engines.model_files import DEFAULT, ModelFiles
from nad.engines.transformers.adapters import merged, without_adapter
from nad.errors import NadError

_NO_ADAPTER = {"subfolder": "none"}
"""Where transformers is told to look for an adapter in a hub's repository."""
_TEXT_MODEL_IN_WRAPPER = {
    r"^(model\.)?language_model\.(model\.)?(?!lm_head)": "model.",
    r"^language_model\.lm_head": "lm_head",
}
"""Where the weights of a text model lie in the files of one that also sees or hears."""


def read_stock(
    files: ModelFiles,
    dtype: torch.dtype,
    check: Callable[[nn.Module], None] = lambda empty: None,
    trust_remote_code: bool = False,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Any causal language model transformers knows, and its tokenizer; `check` sees the model without its weights.

    Of a model that also sees or hears, and is not a causal language model as a whole, the text model is loaded.
    """
    with without_adapter(files.path) as path:
        model = _read_model(replace(files, path=path), dtype, check, trust_remote_code)
    if files.adapter:
        model = merged(model, files)
    return model, AutoTokenizer.from_pretrained(files.path, **_source(files, trust_remote_code))


def _source(files: ModelFiles, trust_remote_code: bool) -> dict[str, Any]:
    """What every automatic class is told beside the path."""
    gguf = {"gguf_file": files.gguf_file} if files.gguf_file else {}
    return {"trust_remote_code": trust_remote_code, **gguf}


def _read_model(
    files: ModelFiles, dtype: torch.dtype, check: Callable[[nn.Module], None], trust_remote_code: bool
) -> PreTrainedModel:
    source = _source(files, trust_remote_code)
    whole = AutoConfig.from_pretrained(files.path, **source)
    config = _causal(whole, files, trust_remote_code)
    with torch.device("meta"):
        check(AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=trust_remote_code))
    options: dict[str, Any] = {"dtype": dtype, "config": config, "adapter_kwargs": _NO_ADAPTER, **source}
    if config is not whole:
        options["key_mapping"] = _TEXT_MODEL_IN_WRAPPER
    if files.gguf_file and hasattr(transformers, "GgufConfig"):  # older versions always unpack
        # Packed weights are not linear layers: the scores of Eq. 1 need W_out itself.
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    model, found = AutoModelForCausalLM.from_pretrained(files.path, output_loading_info=True, **options)
    if config is not whole and set(found["missing_keys"]) == {"lm_head.weight"} and whole.tie_word_embeddings:
        model.config.tie_word_embeddings = True  # which the wrapper's configuration says, not the text model's
        model.tie_weights()
    elif found["missing_keys"]:
        # They would be left random.
        raise NadError(
            f"cannot load the model {files.name}: its files lack {len(found['missing_keys'])} tensors, "
            f"{min(found['missing_keys'])} among them; download them again"
        )
    if files.gguf_file:
        _end_where_the_file_says(model, Path(files.path, files.gguf_file))
    return model


def _causal(config: PretrainedConfig, files: ModelFiles, trust_remote_code: bool) -> PretrainedConfig:
    """The configuration if AutoModelForCausalLM maps it, else its text model's."""
    own = "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {})
    for candidate in (config, config.get_text_config()):
        if type(candidate) in MODEL_FOR_CAUSAL_LM_MAPPING or (own and trust_remote_code):
            return candidate
    raise NadError(
        f"cannot load the model {files.name}: transformers has no model of the type {config.model_type!r} that writes "
        "text from text alone (AutoModelForCausalLM); take a text model"
    )


def _end_where_the_file_says(model: PreTrainedModel, gguf: Path) -> None:
    """Add the file's end tokens to the model's settings: transformers reads one of three."""
    known = model.generation_config.eos_token_id
    ends = {*(known if isinstance(known, list) else [known]), *end_of_turn_tokens(gguf_settings(gguf))}
    model.generation_config.eos_token_id = sorted(ends - {None}) or None


def unpack(gguf: Path, folder: Path) -> None:
    """Write a GGUF file as a folder of safetensors with its tokenizer; float32 keeps its weights exactly."""
    model, tokenizer = read_stock(ModelFiles(DEFAULT, str(gguf.parent), gguf.name), torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
