"""What runs a model: the Engine contract, and `load_engine`."""

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import entry_points
from typing import Protocol, runtime_checkable

from nad.activation import ActivationRule
from nad.errors import UsageError
from nad.stopping import StopRule
from nad.types import Completion, Group, Message, SamplingParams

ENGINES: Mapping[str, str] = {
    "transformers": "nad.engines.transformers:load_transformers",
    "replay": "nad.engines.replay:load_replay",
}
"""Engine names and what loads them; entry points of the group `nad.engines` add to it."""


@runtime_checkable
class Engine(Protocol):
    """Samples completions of a prompt together with the neurons they activate.

    Token ids are the model's. Methods raise UsageError on a call that cannot be served, NadError on failure.
    """

    @property
    def name(self) -> str:
        """The model, as results report it."""

    @property
    def kind(self) -> str:
        """The engine's name in ENGINES."""

    @property
    def revision(self) -> str | None:
        """Which version of the model it is, where its source says so."""

    @property
    def dtype(self) -> str:
        """What it computes in, as `--dtype` names it."""

    @property
    def layers(self) -> int:
        """Number of layers with neurons."""

    @property
    def neurons(self) -> int:
        """Number of neurons of all layers."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know about how this model runs."""

    @property
    def eos(self) -> frozenset[int]:
        """The tokens that end a completion."""

    def encode(
        self, prompt: str | Sequence[Message], raw: bool = False, template_args: Mapping[str, object] | None = None
    ) -> tuple[int, ...]:
        """The prompt's tokens, through the chat template unless `raw`."""

    def encode_completion(self, text: str) -> tuple[int, ...]:
        """The tokens of a completion's text."""

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of these tokens, special tokens left out."""

    def sample(
        self,
        prompt_tokens: Sequence[int],
        n: int,
        params: SamplingParams,
        stop: StopRule,
        rule: ActivationRule | None,
        signals: bool = False,
    ) -> Group:
        """n completions, cut where `stop` says; `rule` None captures nothing, `signals` adds their Signals."""

    def extend(self, prompt_tokens: Sequence[int], completion: Completion, params: SamplingParams) -> Iterator[int]:
        """The tokens that come after an unfinished completion, up to a stop token or max_tokens."""

    def score(
        self,
        prompt_tokens: Sequence[int],
        completion_tokens: Sequence[int],
        rule: ActivationRule,
        signals: bool = False,
    ) -> Completion:
        """The completion with the neurons it activates, read in one pass."""


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
