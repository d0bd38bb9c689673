"""Loading a model and its tokenizer, with errors a user can act on."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch
from huggingface_hub.utils import logging as hub_logging
from torch import nn
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from nad.engines.base import Report
from nad.engines.model_files import DEFAULT, ModelFiles, locate
from nad.errors import NadError, UsageError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
_CACHE_LINE = 64
"""Bytes."""


def load(name: str | None, device: str, dtype: str, report: Report) -> tuple[str, nn.Module, PreTrainedTokenizerBase]:
    """The model's name, the model in evaluation mode on its device, and its tokenizer."""
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    hub_logging.set_verbosity_error()
    place = choose_device(device)
    kind = choose_dtype(dtype, place)
    files = locate(name, _unpack, report)
    report(f"loading {files.name} ({str(kind).removeprefix('torch.')}, {place.type})")
    with _failures_named(files):
        model, tokenizer = _read(files, kind, lambda empty: _check_memory(empty, files, kind, place))
    if place.type == "cpu":
        _align(model)
    return files.name, model.to(place).eval(), tokenizer


def _align(model: nn.Module) -> None:
    """Move weights to where a cache line begins; mapped from a file they begin anywhere, and are slower to read."""
    for weight in model.parameters():
        if weight.data_ptr() % _CACHE_LINE:
            weight.data = weight.data.clone()


def _read(
    files: ModelFiles, dtype: torch.dtype, check: Callable[[nn.Module], None]
) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    from nad.engines.transformers.auto_classes import read_stock

    return read_stock(files, dtype, check)


def _unpack(gguf: Path, folder: Path) -> None:
    from nad.engines.transformers.auto_classes import unpack

    with _failures_named(ModelFiles(DEFAULT, str(gguf.parent), gguf.name)):
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


@contextmanager
def _failures_named(files: ModelFiles) -> Iterator[None]:
    """What can be wrong with the files or the network becomes one line."""
    try:
        yield
    except NadError:
        raise
    except json.JSONDecodeError as error:
        raise NadError(f"cannot read the model {files.name}: a damaged JSON file ({error})") from error
    except Exception as error:  # loaders raise types of their own from Rust, numpy, the hub and struct
        raise NadError(f"cannot load the model {files.name}: {_reason(files, error)}") from error


def _reason(files: ModelFiles, error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if files.gguf_file:
        return f"the GGUF file is damaged, cut short or of an unknown kind ({text[:200]}); download it again"
    if files.path != files.name or Path(files.path).is_dir():
        return f"its files are damaged or incomplete ({text[:200]}); download them again"
    if "connect" in text:
        return (
            "the hub cannot be reached and the model is not in its cache; check the network, or pass a folder or .gguf"
        )
    return f"{text[:200]}; check the name on the hub, or pass a folder or a .gguf file"
