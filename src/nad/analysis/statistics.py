"""How sure a number is (bootstrap over problems), and how well a score ranks right samples above wrong ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, Num

RESAMPLES = 10_000


@dataclass(frozen=True)
class Estimate:
    """A mean over problems with its 95 % interval; the ends are nan with fewer than two problems."""

    value: float
    low: float
    high: float


def drawn_sums(values: Float[np.ndarray, "problems columns"], seed: int = 0) -> Float[np.ndarray, "draws columns"]:
    """Column sums over problems drawn again with replacement; the draws are the same for all columns and every call."""
    return _drawn(len(values), seed) @ values


@lru_cache(2)
def _drawn(problems: int, seed: int) -> Float[np.ndarray, "draws problems"]:
    """How often each draw has each problem: the most expensive part of an interval, and the same for all of them."""
    weights = np.random.default_rng(seed).multinomial(problems, np.full(problems, 1 / problems), RESAMPLES)
    found = weights.astype(float)
    found.setflags(write=False)
    return found


def drawn_means(values: Float[np.ndarray, "problems columns"], seed: int = 0) -> Float[np.ndarray, "draws columns"]:
    """The same for means; nan values are left out, and a draw that has nothing else is nan."""
    there = np.isfinite(values)
    both = drawn_sums(np.concatenate([there, np.where(there, values, 0.0)], axis=1).astype(float), seed)
    count, total = np.split(both, 2, axis=1)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def estimates(values: Float[np.ndarray, "problems columns"]) -> list[Estimate]:
    """The mean of each column with the percentile interval of its draws; nan values (not graded) are left out."""
    there = np.isfinite(values)
    count = there.sum(axis=0)
    means = np.divide(np.where(there, values, 0.0).sum(axis=0), count, out=np.full(len(count), np.nan), where=count > 0)
    bounds = np.full((2, len(count)), np.nan)
    drawn = drawn_means(values)
    # A column that few problems have can miss in some draws; the percentiles of the others are far faster.
    whole = np.isfinite(drawn).all(axis=0)
    for columns, percentiles in ((whole & (count > 1), np.percentile), (~whole & (count > 1), np.nanpercentile)):
        bounds[:, columns] = percentiles(drawn[:, columns], [2.5, 97.5], axis=0)
    return [Estimate(*map(float, column)) for column in zip(means, *bounds, strict=True)]


def correlation(x: Sequence[Float[np.ndarray, " _"]], y: Sequence[Float[np.ndarray, " _"]]) -> Estimate:
    """Pearson's r of all values of all problems, an array for each; the interval draws problems, as their values hang
    together. nan where one of both has a single value.
    """
    pairs = list(zip(x, y, strict=True))
    sums = np.array([[len(a), a.sum(), b.sum(), (a * a).sum(), (b * b).sum(), (a * b).sum()] for a, b in pairs])
    n, sx, sy, sxx, syy, sxy = np.concatenate([sums.sum(axis=0, keepdims=True), drawn_sums(sums)]).T
    spread = np.sqrt((n * sxx - sx**2).clip(0) * (n * syy - sy**2).clip(0))
    r = np.divide(n * sxy - sx * sy, spread, out=np.full(len(n), np.nan), where=spread > 0)
    bounds = np.nanquantile(r[1:], [0.025, 0.975]) if len(pairs) > 1 and np.isfinite(r[1:]).any() else (np.nan, np.nan)
    return Estimate(*map(float, (r[0], *bounds)))


def auroc(right: Num[np.ndarray, " a"], wrong: Num[np.ndarray, " b"]) -> float:
    """Probability that a value of `right` is larger than one of `wrong`, ties counted half; nan without a pair.

    0.5 means none, 1 a perfect separation.
    """
    if not len(right) or not len(wrong):
        return np.nan
    ordered = np.sort(wrong)
    below, not_above = np.searchsorted(ordered, right, side="left"), np.searchsorted(ordered, right, side="right")
    return float((below + not_above).sum() / (2 * len(right) * len(wrong)))


def pairs_above(scores: Float[np.ndarray, " n"], pairs: Bool[np.ndarray, "n n"]) -> float | None:
    """Share of the pairs (i, j) with score i above score j, ties counted half; None without pairs."""
    if not pairs.any():
        return None
    i, j = pairs.nonzero()
    return float(((scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j])).mean())


def mean(values: Sequence[float | None]) -> float | None:
    """The mean of those that are known; None without any."""
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None
