"""The contract of everything that runs a model."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

from nad.neurons.activation import ActivationRule
from nad.stopping import StopRule
from nad.types import Completion, Group, Message, SamplingParams


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
