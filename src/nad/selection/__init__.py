"""Who chooses one of n answers: one protocol and one table for agreement, votes, confidence, length and controls."""

from collections.abc import Mapping
from functools import cache

from nad.errors import UsageError
from nad.selection.agreement import DBSCAN, KNN, ConsensusMax, ConsensusMin, MaxAct, Medoid, MinAct
from nad.selection.base import NEEDS, Candidates, Choice, Consensus, NotApplicable, Selector
from nad.selection.confidence import DeepConf, Entropy, LogProbability, SelfCertainty, SoftSelfConsistency
from nad.selection.controls import First, Random
from nad.selection.length import Longest, Shortest
from nad.selection.votes import BordaVote, DeepConfVote, MajorityVote, UniversalSelfConsistency
from nad.spec_grammar import parse_spec, spec_of, with_entry_points

__all__ = [
    "NEEDS",
    "SELECTORS",
    "Candidates",
    "Choice",
    "Consensus",
    "NotApplicable",
    "Selector",
    "all_selectors",
    "check_applies",
    "default_selectors",
    "parse_selector",
    "selector_spec",
]

SELECTORS: Mapping[str, type[Selector]] = {
    "knn": KNN,
    "medoid": Medoid,
    "dbscan": DBSCAN,
    "minact": MinAct,
    "maxact": MaxAct,
    "consensus-min": ConsensusMin,
    "consensus-max": ConsensusMax,
    "cons": MajorityVote,
    "self-certainty-vote": BordaVote,
    "deepconf-vote": DeepConfVote,
    "universal": UniversalSelfConsistency,
    "logprob": LogProbability,
    "entropy": Entropy,
    "self-certainty": SelfCertainty,
    "deepconf": DeepConf,
    "soft": SoftSelfConsistency,
    "shortest": Shortest,
    "longest": Longest,
    "random": Random,
    "first": First,
}

_VARIANTS = {
    **{name: (name, f"{name}@tokens", f"{name}@bigrams") for name in ("knn", "medoid", "dbscan")},
    "deepconf": ("deepconf", "deepconf:bottom10", "deepconf:tail", "deepconf:lowest"),
    "deepconf-vote": ("deepconf-vote", "deepconf-vote:0.9", "deepconf-vote:0.1"),
}
"""Variants that are compared beside the selectors: agreement of texts, DeepConf's measures and shares."""


@cache
def all_selectors() -> Mapping[str, type]:
    """The table, and what installed packages add to it through entry points of the group nad.selectors.

    They are looked up once: that takes 10 ms among a hundred packages.
    """
    return with_entry_points(SELECTORS, "nad.selectors")


def parse_selector(spec: str) -> Selector:
    """`knn`, `knn:k=5`, `knn@tokens:k=5`, `knn@neurons:weight=peak`, `deepconf:tail`. Raises UsageError."""
    selector: Selector = parse_spec(spec, all_selectors(), "selector")
    return selector


def selector_spec(selector: Selector) -> str:
    """The spec that gives this selector back."""
    return spec_of(selector, all_selectors())


def default_selectors() -> list[Selector]:
    """What `nad select` compares unless it is told: every selector, some of them in variants."""
    return [parse_selector(spec) for name in all_selectors() for spec in _VARIANTS.get(name, (name,))]


def check_applies(selector: Selector, full: bool) -> None:
    """Raise UsageError for a selector that cannot choose among fresh samples: before any is drawn.

    `full` is whether all samples run to their end.
    """
    if "verdict" in selector.needs:
        raise UsageError(
            f"{selector_spec(selector)} needs the model's own verdict, which only `nad eval --consistency` records; "
            "choose with it from a run: nad select RUN"
        )
    if "full" in selector.needs and not full:
        raise UsageError(f"{selector_spec(selector)} needs full answers: --stop-at none")
