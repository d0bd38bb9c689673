"""How sure an accuracy is: bootstrap over problems; and how well a score ranks the right above the wrong."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

RESAMPLES = 10_000


def bootstrap_means(values: Float[np.ndarray, "problems columns"], seed: int = 0) -> Float[np.ndarray, "2 columns"]:
    """Percentile 95 % intervals of the columns' means when problems are drawn again with replacement.

    NaN is no value: a mean is over the problems that have one; a column without any has the interval NaN.
    """
    problems = len(values)
    draws = np.random.default_rng(seed).multinomial(problems, np.full(problems, 1 / problems), RESAMPLES)
    there = ~np.isnan(values)
    weights = draws.astype(float)
    counts = weights @ there
    means = np.divide(
        weights @ np.where(there, values, 0.0), counts, out=np.full(counts.shape, np.nan), where=counts > 0
    )
    intervals = np.full((2, values.shape[1]), np.nan)
    # A column that few problems have can miss in some draws; the percentiles of the others are far faster.
    whole, some = (counts > 0).all(axis=0), there.any(axis=0)
    intervals[:, whole] = np.percentile(means[:, whole], [2.5, 97.5], axis=0)
    intervals[:, some & ~whole] = np.nanpercentile(means[:, some & ~whole], [2.5, 97.5], axis=0)
    return intervals


def auroc(scores: Float[np.ndarray, " n"], correct: Sequence[bool | None]) -> float | None:
    """Chance that a right sample scores above a wrong one, ties counted half; None without both kinds."""
    right = scores[[i for i, c in enumerate(correct) if c is True]]
    wrong = scores[[i for i, c in enumerate(correct) if c is False]]
    if not len(right) or not len(wrong):
        return None
    above, level = (right[:, None] > wrong).sum(), (right[:, None] == wrong).sum()
    return float((above + 0.5 * level) / (len(right) * len(wrong)))


def pairs_above(scores: Float[np.ndarray, " n"], pairs: Bool[np.ndarray, "n n"]) -> float | None:
    """Share of the pairs (i, j) with score i above score j, ties counted half; None without pairs."""
    if not pairs.any():
        return None
    i, j = pairs.nonzero()
    return float(((scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j])).mean())
