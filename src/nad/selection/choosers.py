"""All that can choose from a recorded run, by one name each: selectors, the same on texts, and baselines."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from nad.errors import UsageError
from nad.neurons.activation import ActivationSet
from nad.selection.baselines import BASELINES, Baseline
from nad.selection.selectors import SELECTORS, Selector
from nad.selection.text_sets import bigram_sets, token_sets
from nad.spec_grammar import parse_spec
from nad.types import Completion

SIGHTS: Mapping[str, Callable[[Sequence[Completion]], Sequence[ActivationSet]]] = {
    "neurons": lambda completions: [c.activations for c in completions],
    "tokens": lambda completions: token_sets([c.tokens for c in completions]),
    "bigrams": lambda completions: bigram_sets([c.tokens for c in completions]),
}
"""What a selector can look at: the sets whose agreement it measures."""

_ON_TEXT = ("knn", "medoid", "dbscan")
_VARIANTS = {
    "deepconf": ("deepconf:mean", "deepconf:bottom10", "deepconf:tail", "deepconf:lowest"),
    "deepconf-vote": ("deepconf-vote", "deepconf-vote:0.9", "deepconf-vote:0.1"),
}


@dataclass(frozen=True)
class Method:
    """A selector and what it looks at, or a baseline (`sight` None)."""

    name: str
    chooser: Selector | Baseline
    sight: str | None


def parse_method(spec: str) -> Method:
    """`knn`, `knn:k=5`, `knn@tokens:k=5`, `medoid@bigrams`, `deepconf:tail`. Raises UsageError."""
    head, colon, rest = spec.partition(":")
    name, at, sight = head.partition("@")
    if name in BASELINES:
        if at:
            raise UsageError(f"{name!r} is a baseline and looks at no set; drop @{sight}")
        return Method(spec, parse_spec(spec, BASELINES, "baseline"), None)
    if name not in SELECTORS:
        raise UsageError(f"unknown selector {name!r}; allowed: {', '.join([*SELECTORS, *BASELINES])}")
    if (sight if at else "neurons") not in SIGHTS:
        raise UsageError(f"{spec!r} looks at {sight!r}; allowed: {', '.join(SIGHTS)}")
    return Method(spec, parse_spec(name + colon + rest, SELECTORS, "selector"), sight if at else "neurons")


def default_methods() -> list[Method]:
    """Everything, the agreement of neurons beside that of texts."""
    on_text = [f"{name}@{sight}" for sight in ("tokens", "bigrams") for name in _ON_TEXT]
    baselines = [spec for name in BASELINES for spec in _VARIANTS.get(name, (name,))]
    return [parse_method(spec) for spec in [*SELECTORS, *on_text, *baselines]]
