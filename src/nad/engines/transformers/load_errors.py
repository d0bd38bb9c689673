"""What can go wrong with a model's files, the network or the memory, as one line that says what to do."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from nad.engines.model_files import ModelFiles
from nad.engines.transformers.model_checks import REMOTE_CODE
from nad.errors import NadError


@contextmanager
def failures_named(files: ModelFiles) -> Iterator[None]:
    """Turn what the loaders raise into NadError."""
    try:
        yield
    except NadError:
        raise
    except Exception as error:  # loaders raise types of their own from Rust, numpy, the hub and struct
        raise NadError(f"cannot load the model {files.name}: {_reason(files, error)}") from error


def _reason(files: ModelFiles, error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if out_of_memory(error):
        return "out of memory; take a smaller model or a smaller --dtype, or free some memory"
    if isinstance(error, json.JSONDecodeError):
        return f"a damaged JSON file ({error}); download it again"
    if "trust_remote_code" in text:
        return REMOTE_CODE
    if "backend tokenizer" in text:
        needed = "it needs tokenizer.json, or tokenizer.model and the package sentencepiece"
        return f"its tokenizer cannot be read; {needed} ({text[:100]})"
    if isinstance(error, ImportError) or "pip install" in text or "sentencepiece" in text:
        return f"a package it needs is not installed ({text[:200]})"
    if files.gguf_file:
        return f"the GGUF file is damaged, cut short or of an unknown kind ({text[:200]}); download it again"
    if Path(files.path).is_dir():
        return f"its files are damaged or incomplete ({text[:200]}); download them again"
    if "connect" in text:
        return (
            "the hub cannot be reached and the model is not in its cache; check the network, or pass a folder or .gguf"
        )
    return f"{text[:200]}; check the name on the hub, or pass a folder or a .gguf file"


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: Python's, CUDA's, or that of torch on a CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError | OSError) and any(
        sign in text
        for sign in ("out of memory", "can't allocate memory", "Cannot allocate memory", "not enough memory")
    )
