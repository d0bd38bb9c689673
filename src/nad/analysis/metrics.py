"""Numbers over problems: accuracy of a method, tokens as the paper counts them, intervals, separation."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from nad.analysis.digest import ProblemDigest

RESAMPLES = 2_000


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
    """Majority vote over the extracted answers; a tie fails, and so does a problem without any vote (section 5.1)."""
    votes = Counter(answer for answer in problem.answers if answer is not None).most_common(2)
    if not votes or (len(votes) == 2 and votes[0][1] == votes[1][1]):
        return 0.0
    grades = [c for c, a in zip(problem.correct, problem.answers, strict=True) if a == votes[0][0]]
    graded = [grade for grade in grades if np.isfinite(grade)]
    return float(graded[0]) if graded else np.nan


def votes(problems: Sequence[ProblemDigest]) -> bool:
    """Whether answers can be compared at all; programs cannot."""
    return any(answer is not None for p in problems for answer in p.answers)


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


def resample_sums(
    values: Float[np.ndarray, "problems columns"], seed: int = 0
) -> Float[np.ndarray, "draws columns"]:
    """Column sums over problems drawn with replacement; one draw serves all columns, so they stay paired."""
    problems = len(values)
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(problems, np.full(problems, 1 / problems), size=RESAMPLES)
    return weights.astype(float) @ values


def bootstrap(values: Float[np.ndarray, "problems methods"], seed: int = 0) -> Float[np.ndarray, "draws methods"]:
    """Means over resampled problems; nan values (not graded) are left out, a draw of nothing else is nan."""
    total = resample_sums(np.nan_to_num(values), seed)
    count = resample_sums(np.isfinite(values).astype(float), seed)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def estimate(values: Float[np.ndarray, " problems"], draws: Float[np.ndarray, " draws"]) -> Estimate:
    """The mean of the values that are no nan, with the middle 95 % of its draws."""
    finite, drawn = values[np.isfinite(values)], draws[np.isfinite(draws)]
    if not len(finite):
        return Estimate(np.nan, np.nan, np.nan)
    low, high = np.quantile(drawn, [0.025, 0.975]) if len(finite) > 1 else (np.nan, np.nan)
    return Estimate(float(finite.mean()), float(low), float(high))


def over_problems(problems: Sequence[ProblemDigest], value: Callable[[ProblemDigest], float]) -> Estimate:
    """The mean of a number over problems, with its interval."""
    values = np.array([value(p) for p in problems], dtype=float)
    return estimate(values, bootstrap(values[:, None])[:, 0])


def auroc(low: Float[np.ndarray, " a"], high: Float[np.ndarray, " b"]) -> float:
    """Probability that a value of `low` is smaller than one of `high`, ties counted half; nan without a pair.

    0.5 is no separation, 1 a perfect one.
    """
    if not len(low) or not len(high):
        return np.nan
    ordered = np.sort(high)
    above = len(high) - np.searchsorted(ordered, low, side="right")
    ties = np.searchsorted(ordered, low, side="right") - np.searchsorted(ordered, low, side="left")
    return float((above + ties / 2).sum() / (len(low) * len(high)))
