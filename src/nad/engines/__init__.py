"""What runs a model: the Engine contract, and `load_engine`."""

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import entry_points

from nad.engines.base import Engine
from nad.errors import UsageError

ENGINES: Mapping[str, str] = {
    "transformers": "nad.engines.transformers.engine:load_transformers",
    "replay": "nad.runs.replay_engine:load_replay",
}
"""Engine names and what loads them; entry points of the group `nad.engines` add to it."""


def load_engine(
    model: str | None = None,
    engine: str = "transformers",
    *,
    device: str = "auto",
    dtype: str = "auto",
    report: Callable[[str], None] = lambda text: None,
) -> Engine:
    """An engine for `model`: a hub id, a local folder, a GGUF file, or None for the small default model.

    `dtype` and `device` "auto" follow the hardware; `report` is called with a line before each slow step.
    Raises UsageError for names that do not exist, NadError when the model cannot be loaded.
    """
    targets = {**ENGINES, **{point.name: point.value for point in entry_points(group="nad.engines")}}
    if engine not in targets:
        raise UsageError(f"unknown engine {engine!r}; allowed: {', '.join(targets)}")
    module, _, function = targets[engine].partition(":")
    with _without_collection():
        load: Callable[..., Engine] = getattr(import_module(module), function)
        return load(model, device=device, dtype=dtype, report=report)


@contextmanager
def _without_collection() -> Iterator[None]:
    """Importing torch and transformers makes a million objects that all stay: searching them for garbage takes 1 s."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
