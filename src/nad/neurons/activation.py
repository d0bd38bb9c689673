"""Which neurons a completion activated, and when (Eqs. 2 and 3)."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float16, Int, UInt32

from nad.errors import UsageError
from nad.spec_grammar import parse_spec


@dataclass(frozen=True)
class ActivationRule:
    """Which scores of Eq. 1 count as an activation (Eqs. 2, 5 and 6; docs/decisions/0002-token-threshold.md).

    `keep` "top_k" keeps the `per_layer` largest scores of every layer and the `k` largest of those; "eta" is the
    literal Eq. 2: every neuron whose score reaches the smallest of those k.
    `per` says over what the k largest are taken: each token, or each chunk of `chunk` tokens. `position` says whose
    gates Eq. 1 takes: those of the position that emitted the token, or those of the token's own, which reads it
    (docs/decisions/0062-which-position.md).
    `router` "on" multiplies a score with the weight of its neuron's expert, in a mixture of experts
    (docs/decisions/0061-mixture-of-experts.md).
    """

    keep: Literal["top_k", "eta"] = "top_k"
    k: int = 500
    per_layer: int = 64
    per: Literal["token", "chunk"] = "token"
    chunk: int = 32
    position: Literal["emitting", "own"] = "emitting"
    router: Literal["on", "off"] = "on"

    def __post_init__(self) -> None:
        choices = {
            "keep": ("top_k", "eta"),
            "per": ("token", "chunk"),
            "position": ("emitting", "own"),
            "router": ("on", "off"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise UsageError(f"{name}={getattr(self, name)!r} is unknown; allowed: {', '.join(allowed)}")
        for name in ("k", "per_layer", "chunk"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.per == "chunk" and self.keep == "eta":
            raise UsageError("keep=eta is defined per token only; use per=token, or keep=top_k")

    @property
    def lag(self) -> int:
        """How many positions after the emitting one a token's gates are taken: 1 at its own, else 0."""
        return int(self.position == "own")


def parse_rule(spec: str) -> ActivationRule:
    """`top_k`, `top_k:k=200,per=chunk`, `eta`, `eta:k=500`: how the scores that count are kept, and its parameters."""
    keep, _, rest = spec.partition(":")
    if keep not in ("top_k", "eta"):
        raise UsageError(f"unknown activation rule {keep!r}; allowed: top_k, eta")
    if rest and "=" not in rest.partition(",")[0]:
        rest = f"k={rest}"
    return parse_spec(f"{keep}:keep={keep},{rest}", {keep: ActivationRule}, "activation rule")


@dataclass(frozen=True, eq=False)
class ActivationSet:
    """The neurons one completion activated, each with the first token that did it.

    A neuron never leaves the union of Eq. 3, so the set at *every* stop position follows from `first_token`.
    `neuron` is layer * N + i, in a mixture of experts (layer * experts + expert) * N + i, sorted and unique;
    `first_token` counts the completion's tokens from 0;
    `peak` is the neuron's largest score (Eq. 1) over the completion, held in float16 and cut to its range.
    """

    neuron: UInt32[np.ndarray, " m"]
    first_token: UInt32[np.ndarray, " m"]
    peak: Float16[np.ndarray, " m"]

    def __post_init__(self) -> None:
        if not len(self.neuron) == len(self.first_token) == len(self.peak):
            raise ValueError("neuron, first_token and peak must have one length")
        if np.any(self.neuron[1:] <= self.neuron[:-1]):
            raise ValueError("neurons must be sorted and unique")

    def __len__(self) -> int:
        return len(self.neuron)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ActivationSet):
            return NotImplemented
        pairs = zip(self._arrays(), other._arrays(), strict=True)
        return all(np.array_equal(mine, theirs) for mine, theirs in pairs)

    def _arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.neuron, self.first_token, self.peak

    def _keep(self, keep: np.ndarray) -> "ActivationSet":
        neuron, first_token, peak = (array[keep] for array in self._arrays())
        return replace(self, neuron=neuron, first_token=first_token, peak=peak)

    def prefix(self, tokens: int) -> "ActivationSet":
        """The set after the first `tokens` tokens; its peaks remain those of the whole completion."""
        return self._keep(self.first_token < tokens)

    def without_peaks(self) -> "ActivationSet":
        """The same set with no peak known: all 0."""
        return replace(self, peak=np.zeros_like(self.peak))

    def strongest(self, k: int) -> "ActivationSet":
        """The k neurons with the largest peaks: the sequence-level top-k of Fig. 7. Ties: the smaller neuron id."""
        order = np.argsort(-self.peak.astype(np.float32), kind="stable")[:k]
        return self._keep(np.sort(order))

    def growth(self, tokens: int) -> Int[np.ndarray, " tokens"]:
        """Unique neurons after 1, 2, ..., `tokens` tokens (Fig. 4c)."""
        return np.bincount(self.first_token, minlength=tokens)[:tokens].cumsum()


def activation_set(
    neuron: Int[np.ndarray, " m"], first_token: Int[np.ndarray, " m"], peak: np.ndarray
) -> ActivationSet:
    """An ActivationSet from sorted ids of any integer type; peaks beyond float16 are cut to its largest value."""
    limit = np.finfo(np.float16).max
    return ActivationSet(
        neuron.astype(np.uint32), first_token.astype(np.uint32), np.clip(peak, -limit, limit).astype(np.float16)
    )
