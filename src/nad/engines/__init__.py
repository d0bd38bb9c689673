"""What runs a model: `load_engine`, and the engines there are."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from nad.engines.base import Engine, LoadOptions, Report, unheard
from nad.errors import UsageError
from nad.thinking import Tags

ENGINES: Mapping[str, str] = {
    "transformers": "nad.engines.transformers.engine:load_transformers",
    "vllm": "nad.engines.vllm.load:load_vllm",
    "replay": "nad.runs.replay_engine:load_replay",
}
"""Engine names and what loads them, (model, LoadOptions) -> Engine; entry points of the group nad.engines add some."""


def load_engine(
    model: Any = None,
    engine: str = "transformers",
    *,
    tokenizer: Any = None,
    device: str = "auto",
    dtype: str = "auto",
    fast_cpu: bool | None = None,
    arguments: Mapping[str, str] | None = None,
    trust_remote_code: bool = False,
    fold_system: bool = False,
    thinking_tags: Sequence[Tags] = (),
    replicas: int | None = None,
    ray_address: str | None = None,
    report: Report = unheard,
) -> Engine:
    """An engine for `model`: a hub id, a local folder, a GGUF file, or None for the small default model.

    A transformers model that is loaded already is taken as it is, with its `tokenizer`. With `replicas` so many copies
    are loaded, each in a process of its own: in a Ray cluster on this machine that lives as long as the engine, or in
    the one at `ray_address`. The other arguments are those of LoadOptions. Raises UsageError for names that do not
    exist, NadError when the model cannot be loaded.
    """
    targets = {**ENGINES, **{point.name: point.value for point in entry_points(group="nad.engines")}}
    if engine not in targets:
        raise UsageError(f"unknown engine {engine!r}; allowed: {', '.join(targets)}")
    options = LoadOptions(
        device=device,
        dtype=dtype,
        tokenizer=tokenizer,
        fast_cpu=fast_cpu,
        arguments=arguments or {},
        trust_remote_code=trust_remote_code,
        fold_system=fold_system,
        thinking_tags=tuple(thinking_tags),
        report=report,
    )
    if replicas is not None:
        from nad.engines.cluster.engine import load_replicas

        return load_replicas(model, engine, options, replicas, ray_address)
    if ray_address is not None:
        raise UsageError("--ray-address needs --replicas: how many engines to start there")
    module, _, function = targets[engine].partition(":")
    load: Callable[..., Engine] = getattr(import_module(module), function)
    return load(model, options)
