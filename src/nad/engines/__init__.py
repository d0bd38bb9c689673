"""What runs a model: the Engine contract, and `load_engine`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from nad.activation import ActivationRule
from nad.stopping import StopRule
from nad.types import Completion, Group, Message, SamplingParams


class Engine(Protocol):
    """Samples completions of a prompt together with the neurons they activate.

    Token ids are the model's. Every method raises UsageError on a call that cannot be served, NadError on failure.
    """

    @property
    def name(self) -> str:
        """The model, as results report it."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know about how this model runs."""

    def encode(
        self, prompt: str | Sequence[Message], raw: bool = False, template_args: Mapping[str, object] | None = None
    ) -> tuple[int, ...]:
        """The prompt's tokens, through the chat template unless `raw`."""

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
        """n completions, cut where `stop` says; `rule` None captures nothing."""

    def extend(
        self, prompt_tokens: Sequence[int], completion: Completion, params: SamplingParams
    ) -> Iterator[int]:
        """The tokens that come after an unfinished completion, up to its stop token or max_tokens."""

    def score(
        self,
        prompt_tokens: Sequence[int],
        completion_tokens: Sequence[int],
        rule: ActivationRule,
        signals: bool = False,
    ) -> Completion:
        """The completion with the neurons it activates, read in one pass."""
