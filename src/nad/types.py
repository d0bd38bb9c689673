"""The values that pass between the modules. All are frozen; none knows torch."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt16

from nad.errors import UsageError
from nad.neurons.activation import ActivationSet
from nad.prefixes import PrefixCurve, prefix_curve


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True)
class SamplingParams:
    """How tokens are drawn. The defaults are the paper's (section 5.1); `temperature` 0 is greedy.

    `max_tokens` bounds a completion, its stop token included.
    """

    temperature: float = 0.6
    top_p: float = 0.9
    max_tokens: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.temperature == 0 or 1e-6 <= self.temperature < float("inf")):
            raise UsageError(f"temperature must be 0 (greedy) or at least 1e-6, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"top_p must be in (0, 1], got {self.top_p}")
        if self.max_tokens < 1:
            raise UsageError(f"max_tokens must be at least 1, got {self.max_tokens}")
        if not 0 <= self.seed < 2**64:
            raise UsageError(f"seed must be in [0, 2^64), got {self.seed}")


@dataclass(frozen=True, eq=False)
class Signals:
    """What the model's output distribution said at each token, at temperature 1 over the whole unembedding.

    `logprob` of the emitted token and `entropy` in nats; `self_certainty` is KL(uniform || p) of Kang et al. 2025;
    `confidence` is minus the mean log-probability of the 20 most likely tokens (DeepConf, Fu et al. 2025);
    `chunk_neurons` counts the unique neurons of each chunk of 32 tokens (Fig. 2).
    """

    logprob: Float32[np.ndarray, " tokens"]
    entropy: Float32[np.ndarray, " tokens"]
    self_certainty: Float32[np.ndarray, " tokens"]
    confidence: Float32[np.ndarray, " tokens"]
    chunk_neurons: UInt16[np.ndarray, " chunks"]


@dataclass(frozen=True)
class Completion:
    """One sample: its tokens (a stop token included), its text, and the neurons it activated.

    `finish_reason` is "stop" (an end-of-sequence token), "length" (max_tokens) or None: a prefix that can go on.
    `cache` is the engine's own handle for going on without a second prefill; it is no part of the value.
    """

    index: int
    tokens: tuple[int, ...]
    text: str
    finish_reason: str | None
    activations: ActivationSet
    signals: Signals | None = None
    cache: Any = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Group:
    """The n completions of one prompt, and what they cost: tokens forwarded through the model, and seconds."""

    prompt_tokens: tuple[int, ...]
    completions: tuple[Completion, ...]
    computed_tokens: int
    sample_s: float = 0.0
    capture_s: float = 0.0

    @cached_property
    def prefixes(self) -> PrefixCurve:
        """How many prefixes are distinct, and how many tokens they cost, at every position."""
        return prefix_curve([c.tokens for c in self.completions])

    @property
    def position(self) -> int:
        """The longest completion's length in tokens: the stop position, when one was set."""
        return max(len(c.tokens) for c in self.completions)

    @property
    def distinct(self) -> int:
        """Number of completions that differ pairwise."""
        return len({c.tokens for c in self.completions})

    @property
    def sampled_tokens(self) -> int:
        """Tokens of all completions, as the paper counts them: shared prefixes once for each sample."""
        return sum(len(c.tokens) for c in self.completions)


@dataclass(frozen=True)
class Result:
    """The chosen completion, written to its end, and the group it was chosen from."""

    text: str
    selected: int
    selector: str
    stop_at: str
    scores: tuple[float, ...]
    group: Group
    completion: Completion
    model: str
    params: SamplingParams
    select_s: float
    continue_s: float
    notes: tuple[str, ...] = ()

    @property
    def continued_tokens(self) -> int:
        """Tokens the winner was continued by, after the selection."""
        return len(self.completion.tokens) - len(self.group.completions[self.selected].tokens)
