"""LoRA adapters: merged into the weights, so that Eq. 1 reads the weights the model computes with."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from transformers import PreTrainedModel

from nad.engines.model_files import ADAPTER, ModelFiles, adapted_model
from nad.engines.transformers.model_checks import model_file
from nad.errors import NadError, UsageError


def with_hub_adapter(files: ModelFiles) -> ModelFiles:
    """The files of a hub id, which may be an adapter or hold one; other files as they are."""
    if files.adapter or files.gguf_file or Path(files.path).is_dir():
        return files
    alone = not _has(files.path, "config.json")
    if not _has(files.path, ADAPTER):
        return files
    base = adapted_model(model_file(files.path, ADAPTER)) if alone else files.path
    return replace(files, path=base, adapter=files.path)


def _has(path: str, name: str) -> bool:
    """Whether a hub's repository has a file. OSError where the hub cannot be asked."""
    try:
        model_file(path, name)
    except OSError as error:
        if "does not appear to have a file named" not in str(error):
            raise
        return False
    return True


def check_adapter(files: ModelFiles) -> None:
    """Raise UsageError where there is an adapter and nothing to merge it with, NadError for one without weights."""
    if files.adapter and find_spec("peft") is None:
        raise UsageError(f'{files.name} has an adapter ({ADAPTER}), which peft merges: pip install "nad[adapters]"')
    if files.adapter and Path(files.adapter).is_dir() and not list(Path(files.adapter).glob("adapter_model.*")):
        raise NadError(f"{files.adapter} has {ADAPTER} but no adapter_model.safetensors; download it again")


@contextmanager
def without_adapter(path: str) -> Iterator[str]:
    """A model's folder without its adapter: transformers would load an adapter beside the weights, but not merge it."""
    if not Path(path, ADAPTER).is_file():
        yield path
        return
    with TemporaryDirectory() as bare:
        for file in Path(path).resolve().iterdir():
            if file.name != ADAPTER:
                Path(bare, file.name).symlink_to(file)
        yield bare


def merged(model: PreTrainedModel, files: ModelFiles) -> PreTrainedModel:
    """The model with the adapter's weights added to its own. NadError for an adapter that is not this model's."""
    from peft import PeftModel

    assert files.adapter is not None
    try:
        with warnings.catch_warnings():
            # What is missing would count as zeros.
            warnings.filterwarnings("error", message="Found missing adapter keys")
            adapted = PeftModel.from_pretrained(model, files.adapter)
    except (RuntimeError, ValueError, KeyError, TypeError, OSError, UserWarning) as error:
        reason = " ".join(str(error).split())
        raise NadError(f"the adapter {files.adapter} does not fit the model {files.path}: {reason[:200]}") from error
    if not hasattr(adapted.base_model, "merge_and_unload"):
        kind = type(adapted.peft_config["default"]).__name__
        raise NadError(f"the adapter {files.adapter} ({kind}) cannot be merged into weights; LoRA and its kin can")
    return adapted.merge_and_unload()


def adapter_notes(files: ModelFiles) -> tuple[str, ...]:
    """What results say of an adapter."""
    if files.gguf_file and Path(files.path, ADAPTER).is_file():
        return (
            f"the adapter beside {files.gguf_file} is left out: it goes with the folder's model, not with a GGUF file",
        )
    if files.adapter is None:
        return ()
    base = files.path if not Path(files.path).is_dir() else Path(files.path).resolve().name
    return (f"the adapter {Path(files.adapter).name} is merged into the weights of {base}",)
