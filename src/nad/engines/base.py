"""The contract of everything that runs a model: an Engine starts rollouts, a Rollout owns its samples."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from nad.neurons.activation import ActivationRule
from nad.stopping import Progress, StopRule
from nad.thinking import Tags
from nad.types import Completion, Group, Message, SamplingParams


@runtime_checkable
class Report(Protocol):
    """Is told what takes long: a line before each slow step, and while it lasts how much of it is done (0 to 1)."""

    def __call__(self, text: str, share: float | None = None, /) -> None: ...


def unheard(text: str, share: float | None = None, /) -> None:
    """The report that nobody reads."""


@dataclass(frozen=True)
class LoadOptions:
    """How a model is loaded. `report` is told of each slow step.

    `device` and `dtype` "auto" follow the hardware. `tokenizer` comes with a model that is loaded already. `fast_cpu`
    allows the decoding step written for CPUs; None allows it except for a model that is loaded already, whose owner
    may have hooked its modules. `arguments` are the engine's own (`--engine-arg`). `trust_remote_code` runs Python
    code that comes with the model; `fold_system` puts a system message into the first user turn where the chat
    template takes none; `thinking_tags` are what opens and closes a thinking block, beside the known ones.
    """

    device: str = "auto"
    dtype: str = "auto"
    tokenizer: Any = None
    fast_cpu: bool | None = None
    arguments: Mapping[str, str] = field(default_factory=dict)
    trust_remote_code: bool = False
    fold_system: bool = False
    thinking_tags: tuple[Tags, ...] = ()
    report: Report = unheard


@runtime_checkable
class Rollout(AbstractContextManager["Rollout"], Protocol):
    """n samples of one prompt under way, and everything they hold: rows, caches, requests.

    Leaving the `with` frees all of it, on any path. A rollout is used by one thread at a time.
    """

    def until(self, stop: StopRule) -> Iterator[Progress]:
        """Sample on until the stop rule is reached or every sample has ended; yields each position on the way.

        A rule that is reached already lets it yield nothing. Closing the iterator early leaves the samples as they are.
        """

    def group(self) -> Group:
        """The samples as they stand, cut exactly at the position the last `until` stopped at."""

    def keep(self, samples: Sequence[int], capture: bool = True) -> None:
        """Drop all samples but these (by their index) and free what they hold, now.

        With `capture` False no neurons are recorded from now on, and samples that go on have none.
        """


@runtime_checkable
class Engine(Protocol):
    """Samples completions of a prompt together with the neurons they activate.

    Token ids are the model's. Methods raise UsageError on a call that cannot be served, NadError on failure. They may
    be called from any thread.
    """

    @property
    def name(self) -> str:
        """The model, as results report it."""

    @property
    def kind(self) -> str:
        """The engine's name in ENGINES."""

    @property
    def revision(self) -> str | None:
        """The version of the model, where its source names one."""

    @property
    def dtype(self) -> str:
        """What it computes in, as `--dtype` names it."""

    @property
    def layers(self) -> int:
        """Number of layers with neurons."""

    @property
    def neurons(self) -> int:
        """How far the neurons of all layers are numbered; each layer has an equal part of the numbers."""

    @property
    def experts(self) -> int:
        """Into how many equal parts a layer's numbers are divided, one for each expert; 1: it has none."""

    @property
    def context_window(self) -> int | None:
        """How many tokens a prompt and its completion may have together; None where the engine does not know."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know about how this model runs."""

    @property
    def weights_digest(self) -> str | None:
        """What tells the model's weights from others, wherever they lie; None where the engine does not see them."""

    @property
    def thinking_tags(self) -> tuple[Tags, ...]:
        """What opens and closes a thinking block in this model's texts, beside the known tags."""

    @property
    def eos(self) -> frozenset[int]:
        """The tokens that end a completion."""

    @property
    def rollouts(self) -> int:
        """How many rollouts may be open at once; one more `start` waits until another has ended."""

    def encode(
        self, prompt: str | Sequence[Message], raw: bool = False, template_args: Mapping[str, object] | None = None
    ) -> tuple[int, ...]:
        """The prompt's tokens, through the chat template unless `raw`."""

    def prompt_notes(self, prompt: str | Sequence[Message], raw: bool = False) -> tuple[str, ...]:
        """What a user should know about how this prompt is read."""

    def encode_completion(self, text: str) -> tuple[int, ...]:
        """The tokens of a completion's text."""

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of these tokens, without special tokens except those that open or close a thinking block."""

    def start(
        self,
        prompt_tokens: Sequence[int],
        n: int,
        params: SamplingParams,
        rule: ActivationRule | None,
        signals: bool = False,
    ) -> Rollout:
        """Begin n samples of the prompt; `rule` None captures no neurons, `signals` adds the Signals.

        Sample i depends on (seed, i) alone, as far as the engine can promise it.
        """

    def score(
        self,
        prompt_tokens: Sequence[int],
        completion_tokens: Sequence[int],
        rule: ActivationRule,
        signals: bool = False,
    ) -> Completion:
        """The completion with the neurons it activates, read in one pass."""

    def close(self) -> None:
        """Free what the engine holds beyond the life of Python's objects (processes, requests)."""
