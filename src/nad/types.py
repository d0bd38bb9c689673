"""The values that pass between the modules. All are frozen; none knows torch."""

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
from jaxtyping import Float32, UInt16

from nad.errors import UsageError
from nad.neurons.activation import ActivationSet
from nad.prefixes import PrefixCurve, prefix_curve
from nad.stopping import CHUNK


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True)
class SamplingParams:
    """How tokens are drawn. The defaults are the paper's (section 5.1); `temperature` 0 is greedy.

    `max_tokens` bounds a completion, its stop token included. A completion also ends with the token that completes
    one of the texts in `stop`; its text then ends before that one.
    """

    temperature: float = 0.6
    top_p: float = 0.9
    max_tokens: int = 512
    seed: int = 0
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not (self.temperature == 0 or 1e-6 <= self.temperature < float("inf")):
            raise UsageError(f"temperature must be 0 (greedy) or at least 1e-6, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"top_p must be in (0, 1], got {self.top_p}")
        if self.max_tokens < 1:
            raise UsageError(f"max_tokens must be at least 1, got {self.max_tokens}")
        if not 0 <= self.seed < 2**64:
            raise UsageError(f"seed must be in [0, 2^64), got {self.seed}")
        if not all(self.stop):
            raise UsageError("a stop text must not be empty")


@dataclass(frozen=True, eq=False)
class Signals:
    """What the model's output distribution said at each token, at temperature 1 over the whole unembedding.

    `logprob` of the emitted token and `entropy` in nats; `self_certainty` is KL(uniform || p) of Kang et al. 2025;
    `confidence` is minus the mean log-probability of the 20 most likely tokens (DeepConf, Fu et al. 2025);
    `chunk_neurons` counts the unique neurons of each chunk of 32 tokens (Fig. 2), as far as they were captured.
    """

    logprob: Float32[np.ndarray, " tokens"]
    entropy: Float32[np.ndarray, " tokens"]
    self_certainty: Float32[np.ndarray, " tokens"]
    confidence: Float32[np.ndarray, " tokens"]
    chunk_neurons: UInt16[np.ndarray, " chunks"]

    def prefix(self, tokens: int) -> "Signals":
        """The signals of the first tokens. How many neurons a cut chunk has is not known: it is left out."""
        cut = tokens < len(self.logprob)
        return Signals(
            self.logprob[:tokens],
            self.entropy[:tokens],
            self.self_certainty[:tokens],
            self.confidence[:tokens],
            self.chunk_neurons[: tokens // CHUNK] if cut else self.chunk_neurons,
        )


@dataclass(frozen=True)
class Completion:
    """One sample: its tokens (a stop token included), its text, and the neurons these tokens activated.

    `finish_reason` is "stop" (an end-of-sequence token, or a stop text), "length" (max_tokens) or None: a prefix that
    can go on. `activations` is None where neurons were not captured for all of the tokens, `signals` where they were
    not asked for. `text_end[t]` is the number of characters of the text that stand after token t; it is empty where
    that is not known.
    """

    index: int
    tokens: tuple[int, ...]
    text: str
    finish_reason: str | None
    activations: ActivationSet | None = None
    signals: Signals | None = None
    text_end: tuple[int, ...] = ()

    def prefix(self, tokens: int) -> "Completion":
        """The completion as it stood after `tokens` tokens, exactly; itself if it has no more.

        The peaks of its neurons up to there are not known: they are 0. Raises ValueError for a text whose ends are
        not known.
        """
        if tokens >= len(self.tokens):
            return self
        if self.text and not self.text_end:
            raise ValueError(f"completion {self.index} does not know where its tokens end in its text")
        return replace(
            self,
            tokens=self.tokens[:tokens],
            text=self.text[: self.text_end[tokens - 1]] if self.text and tokens else "",
            finish_reason=None,
            activations=self.activations.prefix(tokens).without_peaks() if self.activations is not None else None,
            signals=self.signals.prefix(tokens) if self.signals is not None else None,
            text_end=self.text_end[:tokens],
        )


@dataclass(frozen=True)
class Group:
    """The n completions of one prompt, and what they cost: tokens that went through the model, and seconds."""

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
        """Number of completions that differ pairwise; one that is the beginning of another (--prune) does not."""
        ordered = sorted({c.tokens for c in self.completions})
        return 1 + sum(after[: len(before)] != before for before, after in pairwise(ordered))

    @property
    def sampled_tokens(self) -> int:
        """Tokens of all completions, as the paper counts them: shared prefixes once for each sample."""
        return sum(len(c.tokens) for c in self.completions)


@dataclass(frozen=True)
class Result:
    """The chosen completion, written to its end, and the group it was chosen from.

    `completions` are the best ranked ones, written to their ends, best first: the winner alone unless more were asked
    for. Neurons are captured up to the choice only, so these have `activations` only if they had ended by then.
    `scores` are the selector's, one for each completion of the group; larger is better.
    """

    selected: int
    selector: str
    stop_at: str
    scores: tuple[float, ...]
    group: Group
    completions: tuple[Completion, ...]
    model: str
    params: SamplingParams
    select_s: float
    continue_s: float
    notes: tuple[str, ...] = ()

    @property
    def completion(self) -> Completion:
        """The winner."""
        return self.completions[0]

    @property
    def text(self) -> str:
        return self.completion.text

    @property
    def continued_tokens(self) -> int:
        """Tokens of the finished completions that were written after the choice."""
        begun = (len(self.group.completions[c.index].tokens) for c in self.completions)
        return sum(len(c.tokens) for c in self.completions) - sum(begun)
