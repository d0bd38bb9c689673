"""What a model's configuration says before anything is loaded: kinds of model that cannot be read, each named."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nad.engines.gguf_header import gguf_settings
from nad.engines.model_files import ModelFiles
from nad.errors import NadError

_MOST_LAYERS = 1000
_LAYERS = re.compile(r"(num_\w*layers|\w+_layers|n_layers?|depth|block_count)$")
_NOT_LAYERS = "max_window_layers"
"""The first layer that slides its window, in Qwen's configurations."""


def check_configuration(files: ModelFiles, trust_remote_code: bool) -> None:
    """Raise NadError, with what to do, for a model this engine cannot load."""
    if files.gguf_file:
        _check_layers(files.name, gguf_settings(Path(files.path, files.gguf_file)))
        return
    config = _read(files, "config.json")
    _check_layers(files.name, config)
    _check_quantised(files.name, config)
    _check_known(files.name, config, trust_remote_code)
    if Path(files.path, "generation_config.json").is_file():  # transformers would go on without it, and say nothing
        _read(files, "generation_config.json")


def _read(files: ModelFiles, name: str) -> dict[str, Any]:
    """A JSON file of the model."""
    path = model_file(files.path, name)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise NadError(
            f"cannot load the model {files.name}: {name} is damaged, it is not JSON ({error}); download it again"
        ) from error
    if not isinstance(values, dict):
        raise NadError(f"cannot load the model {files.name}: {name} is damaged, it holds no object; download it again")
    return values


def model_file(path: str, name: str) -> Path:
    """A file of a folder or of a hub's repository, fetched if need be. OSError if it is not there."""
    from transformers.utils import cached_file

    return Path(cached_file(path, name))


def _check_layers(name: str, config: Mapping[str, Any]) -> None:
    for key, count in _numbers(config):
        key = key.rpartition(".")[2]
        if _LAYERS.match(key) and key != _NOT_LAYERS and count > _MOST_LAYERS:
            raise NadError(
                f"cannot load the model {name}: its configuration asks for {count:,} layers ({key}), more than "
                f"{_MOST_LAYERS:,}: it is damaged or hostile; download it again"
            )


def _numbers(config: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Every number of a configuration and of those inside it, with its name."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _numbers(value)
        elif isinstance(value, int | float):
            yield key, value


def _check_quantised(name: str, config: Mapping[str, Any]) -> None:
    inner = config.get("text_config")
    for holder in (config, inner if isinstance(inner, Mapping) else {}):
        for key in ("quantization_config", "compression_config", "quantization"):
            if isinstance(found := holder.get(key), Mapping):
                method = found.get("quant_method") or ("mlx" if key == "quantization" else "compressed")
                raise NadError(
                    f"cannot load the model {name}: its weights are quantised ({method}), and Eq. 1 reads plain "
                    "ones; take the model it was made from, or a .gguf of it, whose weights are unpacked in memory"
                )


def _check_known(name: str, config: Mapping[str, Any], trust_remote_code: bool) -> None:
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind, own_code = config.get("model_type"), config.get("auto_map")
    if kind in CONFIG_MAPPING or (own_code and trust_remote_code):
        return
    if own_code:
        raise NadError(f"cannot load the model {name}: {REMOTE_CODE}")
    if not kind:
        raise NadError(f"cannot load the model {name}: its config.json names no model_type; download it again")
    raise NadError(
        f"cannot load the model {name}: transformers {transformers.__version__} does not know its type {kind!r}; "
        "if a newer one does: pip install --upgrade transformers"
    )


REMOTE_CODE = (
    "it needs Python code of its own, which could do anything on this machine; read it, and if you trust it pass "
    "--trust-remote-code (trust_remote_code=True)"
)
