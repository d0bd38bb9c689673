"""Numbers over problems: accuracy of a method, tokens as the paper counts them, intervals, separation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Num

from nad.analysis.statistics import RESAMPLES, bootstrap_means
from nad.analysis.summary import ProblemDigest
from nad.selection.votes import vote


@dataclass(frozen=True)
class Estimate:
    """A mean over problems with its 95 % interval; the ends are nan with fewer than two problems."""

    value: float
    low: float
    high: float


def accuracy(problem: ProblemDigest, method: str, position: int | None) -> float:
    """1, 0 or a share of a method at a stop position; nan where what it needs was not graded.

    Methods are `avg`, `cons` and the selectors; the first two look at full answers, whatever the position.
    """
    if method == "avg":
        graded = problem.correct[np.isfinite(problem.correct)]
        return float(graded.mean()) if len(graded) else np.nan
    if method == "cons":
        return majority(problem)
    return float(problem.correct[problem.chosen[method][problem.at(position)]])


def majority(problem: ProblemDigest) -> float:
    """Cons@n; a tie fails, and so does a problem without any vote (section 5.1)."""
    choice = vote(problem.answers, np.ones(problem.n))
    return 0.0 if choice.index is None else float(problem.correct[choice.index])


def full_tokens(problem: ProblemDigest) -> int:
    """Tokens of all n full answers."""
    return int(problem.lengths.sum())


def stopped_tokens(problem: ProblemDigest, method: str, position: int | None) -> int:
    """n prefixes and the winner's rest, as the paper counts them (section 4.2)."""
    stop = problem.positions[-1] if position is None else position
    return int(np.minimum(problem.lengths, stop).sum()) + _rest(problem, method, position)


def computed_tokens(problem: ProblemDigest, method: str, position: int | None) -> int:
    """The same with every shared prefix computed once."""
    return int(problem.computed[problem.at(position)]) + _rest(problem, method, position)


def _rest(problem: ProblemDigest, method: str, position: int | None) -> int:
    winner = int(problem.lengths[problem.chosen[method][problem.at(position)]])
    return 0 if position is None else max(0, winner - position)


def estimates(values: Float[np.ndarray, "problems columns"]) -> list[Estimate]:
    """The mean of each column with its interval; nan values (not graded) are left out."""
    finite = np.isfinite(values)
    count = finite.sum(axis=0)
    means = np.divide(np.where(finite, values, 0).sum(axis=0), count, out=np.full(len(count), np.nan), where=count > 0)
    bounds = np.where(count > 1, bootstrap_means(values), np.nan)
    return [Estimate(*map(float, column)) for column in zip(means, *bounds, strict=True)]


def over_problems(problems: Sequence[ProblemDigest], value: Callable[[ProblemDigest], float]) -> Estimate:
    """The mean of a number over problems, with its interval."""
    return estimates(np.array([[value(p)] for p in problems], dtype=float))[0]


def drawn_sums(values: Float[np.ndarray, "problems columns"], seed: int) -> Float[np.ndarray, "draws columns"]:
    """Column sums over problems drawn again with replacement: the draws behind the intervals of derived numbers."""
    problems = len(values)
    weights = np.random.default_rng(seed).multinomial(problems, np.full(problems, 1 / problems), RESAMPLES)
    return weights.astype(float) @ values


def drawn_means(values: Float[np.ndarray, "problems columns"], seed: int) -> Float[np.ndarray, "draws columns"]:
    """The same of means; nan values are left out, and a draw of nothing else is nan."""
    finite = np.isfinite(values)
    count = drawn_sums(finite.astype(float), seed)
    total = drawn_sums(np.where(finite, values, 0.0), seed)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def auroc(low: Num[np.ndarray, " a"], high: Num[np.ndarray, " b"]) -> float:
    """Probability that a value of `low` is smaller than one of `high`, ties counted half; nan without a pair.

    0.5 is no separation, 1 a perfect one.
    """
    if not len(low) or not len(high):
        return np.nan
    ordered = np.sort(high)
    above = len(high) - np.searchsorted(ordered, low, side="right")
    ties = np.searchsorted(ordered, low, side="right") - np.searchsorted(ordered, low, side="left")
    return float((above + ties / 2).sum() / (len(low) * len(high)))
