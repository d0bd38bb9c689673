"""The figures of the paper's pilot study (section 3): 2, 3 and 4. Each returns a Drawn, or raises Missing."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from nad.analysis.figures.canvas import CORRECT, INCORRECT, NOT_GRADED, Drawn, canvas, file_name, histograms, settings
from nad.analysis.requirements import Missing, require
from nad.analysis.statistics import auroc, correlation
from nad.analysis.summary import ProblemDigest, RunDigest
from nad.stopping import CHUNK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_POINTS = 5_000
"""Points drawn and written of a scatter plot; its numbers are computed from all."""
_TSNE_SEED = 0


def figure_2(run: RunDigest) -> Drawn:
    """Unique neurons of each whole chunk of 32 tokens against its mean self-certainty and entropy (section 3.2)."""
    require(run, "signals")
    from scipy.stats import pearsonr

    chunks = np.concatenate([p.chunks for p in run.problems]).astype(float)
    rng = np.random.default_rng(0)
    shown = chunks if len(chunks) <= _MOST_POINTS else chunks[rng.choice(len(chunks), _MOST_POINTS, replace=False)]
    neurons, entropy, certainty = shown.T
    look: dict[str, Any] = {"alpha": 0.25, "markersize": 3.0} if len(shown) > 500 else {"alpha": 0.7, "markersize": 6.0}
    with canvas(6.8, 2.9, columns=2) as (figure, axes):
        told = []
        signals = ((2, "self-certainty (nats)", certainty), (1, "entropy (nats)", entropy))
        for axis, (column, label, values) in zip(axes, signals, strict=True):
            axis.plot(neurons, values, ".", color=CORRECT, rasterized=True, markeredgewidth=0, **look)
            axis.set(xlabel="unique neurons of a chunk", ylabel=f"mean {label}")
            if len(chunks) < 3 or not np.ptp(chunks[:, 0]) or not np.ptp(chunks[:, column]):
                axis.set_title("no correlation: too few chunks, or one value")
                continue
            r, p = pearsonr(chunks[:, 0], chunks[:, column])
            axis.set_title(f"r = {r:.2f}, {_p_value(p)}")
            told.append(f"{label.partition(' ')[0]} r = {r:.3f}{_r_interval(run, column)}, {_p_value(p)}")
    drawn = "" if len(shown) == len(chunks) else f", {len(shown):,} of them drawn"
    caption = (
        f"Each point is a whole chunk of {CHUNK} tokens; {len(chunks):,} chunks{drawn}. Pearson: {'; '.join(told)}. "
        "The p-value takes chunks for independent, which those of one answer are not; the interval resamples problems. "
    )
    data = {"chunk_neurons": neurons, "mean_entropy": entropy, "mean_self_certainty": certainty}
    title = "Fig. 2: neurons of a chunk against self-certainty and entropy"
    return Drawn(file_name("fig2", run), title, caption + settings(run), figure, data)


def _p_value(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _r_interval(run: RunDigest, column: int) -> str:
    x, y = ([p.chunks[:, c].astype(float) for p in run.problems] for c in (0, column))
    found = correlation(x, y)
    return f" [{found.low:.3f}, {found.high:.3f}]" if len(run.problems) > 1 else ""


def figure_3(run: RunDigest) -> Drawn:
    """t-SNE on 1 - S of one problem's samples, coloured by their mean entropy (section 3.2)."""
    require(run, "group", "entropy")
    problem = _example(run)
    x, y = embedded(problem).T
    with canvas(3.9, 3.1) as (figure, (axis,)):
        points = axis.scatter(x, y, c=problem.entropy, cmap="cividis", s=28, edgecolors="black", linewidths=0.4)
        figure.colorbar(points, ax=axis, label="mean entropy (nats)")
        _bare(axis)
    caption = f"{_placed(problem)} {settings(run)}"
    title = "Fig. 3: samples placed by neuron agreement, coloured by entropy"
    return Drawn(file_name("fig3", run), title, caption, figure, _places(problem) | {"mean_entropy": problem.entropy})


def figure_4a(run: RunDigest) -> Drawn:
    """The same placement, coloured by correctness (section 3.3)."""
    require(run, "group", "grades")
    problem = _example(run)
    x, y = embedded(problem).T
    with canvas(3.9, 3.1) as (figure, (axis,)):
        for grade, colour, mark, label in _grades(problem.correct):
            if grade.any():
                axis.scatter(
                    x[grade], y[grade], c=colour, marker=mark, s=28, linewidths=0.4, edgecolors="black",
                    label=f"{label} ({grade.sum()})",
                )  # fmt: skip
        _bare(axis)
        figure.legend(loc="outside upper center", ncols=3, handletextpad=0.1)
    caption = f"{_placed(problem)} {settings(run)}"
    title = "Fig. 4a: samples placed by neuron agreement, by correctness"
    return Drawn(file_name("fig4a", run), title, caption, figure, _places(problem) | {"correct": problem.correct})


def _grades(correct: np.ndarray) -> tuple[tuple[np.ndarray, str, str, str], ...]:
    return (
        (correct == 1, CORRECT, "o", "correct"),
        (correct == 0, INCORRECT, "s", "incorrect"),
        (np.isnan(correct), NOT_GRADED, "^", "not graded"),
    )


def _example(run: RunDigest) -> ProblemDigest:
    """The problem whose grades are split most evenly; the first of several."""

    def imbalance(problem: ProblemDigest) -> float:
        graded = problem.correct[np.isfinite(problem.correct)]
        return abs(float(graded.mean()) - 0.5) if len(graded) else 1.0

    return min((p for p in run.problems if p.n > 1), key=imbalance)


@lru_cache(maxsize=8)
def embedded(problem: ProblemDigest) -> Float[np.ndarray, "n 2"]:
    """t-SNE of the samples on the distances 1 - S of their full answers; two samples lie side by side."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    if problem.n == 2:
        return np.array([[0.0, 0.0], [1.0, 0.0]])
    distance = np.clip(1 - problem.similarity[-1].astype(float), 0, None)
    perplexity = min(30.0, (problem.n - 1) / 3)
    tsne = TSNE(metric="precomputed", init="random", perplexity=perplexity, random_state=_TSNE_SEED)
    with threadpool_limits(1):  # so few points gain nothing from threads, and lose much on a busy machine
        return tsne.fit_transform(distance).astype(float)


def _places(problem: ProblemDigest) -> dict[str, Any]:
    x, y = embedded(problem).T
    return {"problem": [problem.problem] * problem.n, "sample": range(problem.n), "x": x, "y": y}


def _placed(problem: ProblemDigest) -> str:
    return (
        f"t-SNE on 1 - S of the full answers to one problem, {problem.problem}: of the run's problems the one whose "
        "grades are split most evenly. Distances between far points mean little."
    )


def _bare(axis: "Axes") -> None:
    axis.set(xticks=[], yticks=[], xlabel="t-SNE 1", ylabel="t-SNE 2")


def figure_4b(run: RunDigest) -> Drawn:
    """How many neurons correct and incorrect full answers activate (section 3.3)."""
    require(run, "grades", "both")
    sizes = np.concatenate([p.sizes[-1] for p in run.problems])
    correct = np.concatenate([p.correct for p in run.problems])
    names = [p.problem for p in run.problems for _ in range(p.n)]
    with canvas(4.2, 2.9) as (figure, (axis,)):
        right, wrong = histograms(axis, sizes, correct)
        axis.set(xlabel="activated neurons", ylabel="share of samples")
        figure.legend(loc="outside upper center", ncols=2)
    caption = (
        f"{_separation(auroc(-right, -wrong))} Within a problem, in the mean over those with both: "
        f"{_within(run, lambda p: p.sizes[-1])}. {settings(run)}"
    )
    data: dict[str, Any] = {"problem": names, "activated": sizes, "correct": correct}
    return Drawn(file_name("fig4b", run), "Fig. 4b: activated neurons by correctness", caption, figure, data)


def _separation(fewer: float) -> str:
    return f"AUROC {fewer:.3f}: the probability that a correct sample has fewer than an incorrect one (0.5: none)."


def _within(run: RunDigest, value: Callable[[ProblemDigest], np.ndarray]) -> str:
    """Mean AUROC within the problems that have both, where the difficulty of problems plays no part."""
    found = [auroc(-value(p)[p.correct == 1], -value(p)[p.correct == 0]) for p in run.problems]
    found = [fewer for fewer in found if np.isfinite(fewer)]
    return f"{np.mean(found):.3f} ({len(found)} problems)" if found else "no problem has both"


def figure_4c(run: RunDigest) -> Drawn:
    """Growth of unique neurons by token, correct against incorrect (section 3.3)."""
    require(run, "grades", "both")
    growth = [g for p in run.problems for g in p.growth]
    lengths = np.concatenate([p.lengths for p in run.problems])
    correct = np.concatenate([p.correct for p in run.problems])
    data: dict[str, list] = {key: [] for key in ("grade", "tokens", "samples", "mean", "low", "high")}
    with canvas(4.2, 2.9) as (figure, (axis,)):
        for grade, colour, mark, label in _grades(correct)[:2]:
            curves = [g[: length // CHUNK] for g, length, keep in zip(growth, lengths, grade, strict=True) if keep]
            tokens, samples, quartiles = growth_curve(curves)
            if not len(tokens):
                continue
            every = max(1, len(tokens) // 8)
            axis.plot(tokens, quartiles[0], color=colour, marker=mark, markevery=every, markersize=4, label=label)
            axis.fill_between(tokens, *quartiles[1:], color=colour, alpha=0.2, linewidth=0)
            columns = ([label] * len(tokens), tokens.tolist(), samples.tolist(), *quartiles.tolist())
            for key, column in zip(data, columns, strict=True):
                data[key] += column
        if not data["tokens"]:
            raise Missing(f"{run.label}: no answer reaches {CHUNK} tokens; record longer ones (--max-tokens)")
        axis.set(xlabel="generated tokens", ylabel="unique neurons")
        axis.legend(loc="lower right")
    caption = (
        "Mean over the samples that have got so far, aligned by token; the band holds their middle half. A curve ends "
        f"where fewer than three samples are left. {settings(run)}"
    )
    title = "Fig. 4c: growth of unique neurons by token"
    return Drawn(file_name("fig4c", run), title, caption, figure, data)


def growth_curve(curves: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions, samples that have got so far, and their mean and quartiles; at least three of them, or all."""
    chunks = max((len(c) for c in curves), default=0)
    padded = np.full((len(curves), chunks), np.nan)
    for row, curve in zip(padded, curves, strict=True):
        row[: len(curve)] = curve
    samples = np.isfinite(padded).sum(axis=0)
    keep = samples >= min(3, max(samples, default=0))
    padded, samples = padded[:, keep], samples[keep]
    tokens = CHUNK * (1 + np.flatnonzero(keep))
    if not len(tokens):
        return tokens, samples, np.zeros((3, 0))
    return tokens, samples, np.stack([np.nanmean(padded, axis=0), *np.nanquantile(padded, [0.25, 0.75], axis=0)])
