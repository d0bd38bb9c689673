"""Loading a model and its tokenizer: where, in which precision, and whether it fits."""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
import torch
from huggingface_hub.utils import logging as hub_logging
from torch import nn
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from nad.engines.base import Report
from nad.engines.model_files import ADAPTER, DEFAULT, DEFAULT_DIGEST, ModelFiles, locate
from nad.engines.transformers.load_errors import failures_named
from nad.engines.transformers.model_checks import check_configuration, model_file
from nad.engines.weights_digest import sampled_digest, weight_files
from nad.errors import NadError, UsageError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
_CACHE_LINE = 64
"""Bytes."""


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model in evaluation mode on its device, its tokenizer, and what results say of it.

    `weights_digest` tells its weights from others, wherever they lie (`sampled_digest`).
    """

    name: str
    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    notes: tuple[str, ...] = ()
    weights_digest: str | None = None


def load(name: str | None, device: str, dtype: str, report: Report, trust_remote_code: bool = False) -> LoadedModel:
    """The model called `name`. Raises UsageError for a wrong name, NadError for what cannot be loaded."""
    place = choose_device(device)
    kind = choose_dtype(dtype, place)
    with _said_in_a_line(report):
        files = locate(name, unpack_named, report)
        report(f"loading {files.name} ({str(kind).removeprefix('torch.')}, {place.type})")
        with failures_named(files):
            files, model, tokenizer, notes = _read(files, kind, place, trust_remote_code)
            if place.type == "cpu":
                _align(model)
            model = model.to(place).eval()
    return LoadedModel(files.name, model, tokenizer, notes, weights_digest_of(files))


def _read(
    files: ModelFiles, dtype: torch.dtype, place: torch.device, trust_remote_code: bool
) -> tuple[ModelFiles, nn.Module, PreTrainedTokenizerBase, tuple[str, ...]]:
    from nad.engines.transformers.adapters import adapter_notes, check_adapter, with_hub_adapter
    from nad.engines.transformers.auto_classes import read_stock

    files = with_hub_adapter(files)
    check_adapter(files)
    check_configuration(files, trust_remote_code)
    check = partial(_check_memory, files=files, dtype=dtype, device=place)
    model, tokenizer = read_stock(files, dtype, check, trust_remote_code)
    return files, model, tokenizer, adapter_notes(files)


def weights_digest_of(files: ModelFiles) -> str:
    """What tells these weights from others, wherever they lie."""
    if files.name == DEFAULT:
        return DEFAULT_DIGEST
    if files.gguf_file:
        return sampled_digest([Path(files.path, files.gguf_file)])
    # A hub's copy on this machine is a folder as well.
    weights = weight_files(model_file(files.path, "config.json").parent)
    if files.adapter:
        weights += sorted(model_file(files.adapter, ADAPTER).parent.glob("adapter_model.*"))
    return sampled_digest(weights)


def _align(model: nn.Module) -> None:
    """Move weights to the start of a cache line. Those mapped from a file begin anywhere, and are slower to read."""
    for weight in model.parameters():
        if weight.data_ptr() % _CACHE_LINE:
            weight.data = weight.data.clone()


@contextmanager
def _said_in_a_line(report: Report) -> Iterator[None]:
    """What loading prints or warns goes to `report`, a line each; progress bars are not shown.

    What is set for that in other libraries is set back.
    """
    loggers = [logging.getLogger(name) for name in ("transformers", "huggingface_hub")]
    levels, bars = [logger.level for logger in loggers], transformers_logging.is_progress_bar_enabled()
    printed = io.StringIO()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    hub_logging.set_verbosity_error()
    try:
        with redirect_stdout(printed), warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("default")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bars:
            transformers_logging.enable_progress_bar()
        for text in [*printed.getvalue().splitlines(), *(str(warning.message) for warning in warned)]:
            report(" ".join(text.split()))


def unpack_named(gguf: Path, folder: Path) -> None:
    """`unpack`, with its failures as one line."""
    from nad.engines.transformers.auto_classes import unpack

    with failures_named(ModelFiles(DEFAULT, str(gguf.parent), gguf.name)):
        unpack(gguf, folder)


def choose_device(name: str) -> torch.device:
    """The named device; `auto` is CUDA, then the CPU. Draws are taken in float64, which Apple's MPS does not have."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, dtype=torch.float64, device=device).item()  # what is on "meta" has no value
    except (RuntimeError, AssertionError, TypeError, ImportError):
        raise UsageError(f"device {name!r} is not available here; allowed: auto, cpu, cuda, cuda:N") from None
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The named dtype; `auto` is bfloat16 where the hardware computes in it, else float32 (float16 on older GPUs)."""
    if name != "auto":
        if name not in DTYPES:
            raise UsageError(f"unknown dtype {name!r}; allowed: auto, {', '.join(DTYPES)}")
        return DTYPES[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    capabilities = torch.cpu.get_capabilities()
    native = any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))
    return torch.bfloat16 if native else torch.float32


def _check_memory(empty: nn.Module, files: ModelFiles, dtype: torch.dtype, device: torch.device) -> None:
    """Raise NadError when the weights alone do not fit."""
    needed = sum(p.nbytes for p in empty.parameters())
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    if needed > free:
        raise NadError(
            f"{files.name} needs {needed / 1e9:.1f} GB for its weights in {str(dtype).removeprefix('torch.')}, "
            f"but {free / 1e9:.1f} GB of memory are free; take a smaller model or a smaller --dtype"
        )


def attend_with_soft_caps(model: nn.Module) -> None:
    """Let a model that caps its attention scores run `eager`: older versions of transformers leave the caps out in
    `sdpa` without a word.
    """
    config = model.config.get_text_config()  # type: ignore[union-attr, operator]
    if getattr(config, "attn_logit_softcapping", None) and config._attn_implementation == "sdpa":
        model.set_attn_implementation("eager")  # type: ignore[operator]


def run_experts_in_float64(model: nn.Module) -> None:
    """Let a mixture of experts in float64 run `eager`: the grouped products have no such precision."""
    config = model.config.get_text_config()  # type: ignore[union-attr, operator]
    if model.dtype == torch.float64 and getattr(config, "_experts_implementation", None) == "grouped_mm":
        model.set_experts_implementation("eager")  # type: ignore[operator]
