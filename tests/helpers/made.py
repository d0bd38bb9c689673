"""Small values made by hand or by hypothesis: activation sets, completions, groups."""

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from nad.neurons.activation import ActivationSet, activation_set
from nad.selection import Candidates, Consensus
from nad.types import Completion, Group, Signals


def of(
    neurons: Sequence[int], first: Sequence[int] | None = None, peak: Sequence[float] | None = None
) -> ActivationSet:
    """A set of these sorted neurons; activated by token 0 with score 1 unless said."""
    first = [0] * len(neurons) if first is None else first
    peak = [1.0] * len(neurons) if peak is None else peak
    return activation_set(np.array(neurons, dtype=int), np.array(first, dtype=int), np.array(peak, dtype=float))


def completion(index: int, activations: ActivationSet, tokens: Sequence[int] = (1,)) -> Completion:
    return Completion(index, tuple(tokens), "", None, activations)


def group(*sets: ActivationSet) -> Group:
    return Group((1,), tuple(completion(i, s) for i, s in enumerate(sets)), 0)


@st.composite
def activation_sets(draw: st.DrawFn, neurons: int = 12, tokens: int = 8) -> ActivationSet:
    """Any set over few neurons and few tokens, so that sets overlap."""
    ids = sorted(draw(st.sets(st.integers(0, neurons - 1))))
    first = draw(st.lists(st.integers(0, tokens - 1), min_size=len(ids), max_size=len(ids)))
    peak = draw(st.lists(st.integers(-4, 4).map(float), min_size=len(ids), max_size=len(ids)))
    return of(ids, first, peak)


def agreeing(consensus: Consensus) -> Candidates:
    """Candidates of which only their agreement is known, the same for all that is asked for."""
    return Candidates(np.ones(len(consensus.activated), dtype=int), False, lambda of, weight: consensus, ())


def candidates(**changes: object) -> Candidates:
    """Three finished answers, a, b and a, of 30, 20 and 40 tokens."""
    values: dict[str, object] = {
        "lengths": np.array([30, 20, 40]),
        "full": True,
        "agreement": lambda of, weight: None,
        "recorded": [None] * 3,
        "answers": ["a", "b", "a"],
        "problem": "p",
    }
    return Candidates(**{**values, **changes})  # type: ignore[arg-type]


def with_signal(name: str, rows: Sequence[Sequence[float]], **changes: object) -> Candidates:
    """Candidates that differ in one signal only."""
    made = []
    for row in rows:
        columns = {key: np.ones(len(row), np.float32) for key in ("logprob", "entropy", "self_certainty", "confidence")}
        columns[name] = np.array(row, np.float32)
        made.append(Signals(**columns, chunk_neurons=np.zeros(1, np.uint16)))
    lengths = np.array([len(row) for row in rows])
    return candidates(**{"recorded": made, "lengths": lengths, "answers": None, **changes})
