"""What choosing costs: consensus matrices (Eq. 4) at ten stop positions and all selectors, without any model.

Run: python benchmarks/selection.py [--rounds 5]

Samples are made here: 350,000 neurons, texts of 32,000 tokens. Most neurons that a text activates are activated early
and shared with the others; the rest come one by one. Medians over the rounds, alternating in one process:
- 64 samples, ten positions from 32 to 32,000, and all seven selectors of agreement (target: 0.5 s);
- 1,024 samples at one position, and all selectors (target: 5 s);
- weighted by peaks: the matrices of the same 64 and 1,024 samples at one position;
- pairs: the same matrices as a loop over the pairs of samples, the ratio's base, on 16 samples.
Memory is the largest that numpy held beside the sets, the result included.
"""

import argparse
import statistics
import time
import tracemalloc
from collections.abc import Callable

import numpy as np

from nad.neurons.activation import ActivationSet, activation_set
from nad.neurons.agreement import consensus_curve, weighted_consensus_matrix
from nad.selection import SELECTORS, Candidates, Consensus

AGREEMENT = ("knn", "medoid", "dbscan", "minact", "maxact", "consensus-min", "consensus-max")
NEURONS, TOKENS = 350_000, 32_000
POSITIONS = [32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, TOKENS]


def make_sets(n: int, mean_size: int, seed: int = 0) -> list[ActivationSet]:
    """n sets: a neuron belongs to a sample with a probability of its own, and then appears the earlier the likelier."""
    rng = np.random.default_rng(seed)
    likely = rng.beta(0.3, 0.3 * (NEURONS / mean_size - 1), NEURONS)
    return [_one(np.flatnonzero(rng.random(NEURONS) < likely), likely, rng) for _ in range(n)]


def _one(neuron: np.ndarray, likely: np.ndarray, rng: np.random.Generator) -> ActivationSet:
    wait = rng.exponential(2000 * (1.02 - likely[neuron]))
    return activation_set(neuron, np.minimum(wait, TOKENS - 1).astype(np.int64), rng.gamma(2.0, 1.0, len(neuron)))


def choose_all(sets: list[ActivationSet], positions: list[int]) -> None:
    """Every consensus matrix, and every selector at every position."""
    for position, similarity in zip(positions, consensus_curve(sets, positions), strict=True):
        activated = np.array([np.count_nonzero(s.first_token < position) for s in sets])
        candidates = Candidates(activated, False, lambda of, weight, known=Consensus(similarity, activated): known, ())
        for name in AGREEMENT:
            SELECTORS[name]().choose(candidates)


def pair_by_pair(sets: list[ActivationSet], positions: list[int]) -> None:
    """Eq. 4 as it is written."""
    for position in positions:
        cut = [s.prefix(position).neuron for s in sets]
        for i, a in enumerate(cut):
            for b in cut[:i]:
                len(np.intersect1d(a, b, assume_unique=True)) / len(np.union1d(a, b))


def seconds(run: Callable[[], object]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def memory(run: Callable[[], object]) -> float:
    """The most memory in MB that a call holds at once."""
    tracemalloc.start()
    run()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    few, many = make_sets(64, 40_000), make_sets(1024, 10_000)
    cases: dict[str, tuple[float, Callable[[], object]]] = {
        "64 samples, 10 positions": (0.5, lambda: choose_all(few, POSITIONS)),
        "1,024 samples, 1 position": (5.0, lambda: choose_all(many, [TOKENS])),
        "64 samples, weighted": (0.0, lambda: weighted_consensus_matrix(few)),
        "1,024 samples, weighted": (0.0, lambda: weighted_consensus_matrix(many)),
        "matrices of 16, 10 positions": (0.0, lambda: consensus_curve(few[:16], POSITIONS)),
        "the same pair by pair": (0.0, lambda: pair_by_pair(few[:16], POSITIONS)),
    }
    choose_all(few[:4], POSITIONS)  # imports
    times = [[seconds(run) for _, run in cases.values()] for _ in range(rounds)]
    print(f"{'case':<30}  seconds  of target  MB")
    for (label, (target, run)), taken in zip(cases.items(), zip(*times, strict=True), strict=True):
        median = statistics.median(taken)
        ratio = f"{median / target:.2f}" if target else "-"
        print(f"{label:<30}  {median:>7.2f}  {ratio:>9}  {memory(run):,.0f}")


if __name__ == "__main__":
    main()
