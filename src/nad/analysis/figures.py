"""The paper's figures from recorded runs: one function each, returning a Drawn; Missing says what a run lacks."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from nad.analysis import metrics
from nad.analysis.digest import STRONGEST, ProblemDigest, RunDigest
from nad.analysis.drawing import (
    CORRECT,
    INCORRECT,
    LINES,
    MARKS,
    NOT_GRADED,
    SELECTOR_LABELS,
    STYLES,
    Drawn,
    canvas,
    literal,
    settings,
    slug,
)
from nad.analysis.missing import Missing, require
from nad.stopping import CHUNK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_POINTS = 5_000
"""Points drawn and written of a scatter plot; its numbers are computed from all."""
_TSNE_SEED = 0


def _name(figure: str, run: RunDigest) -> str:
    return f"{figure}_{slug(run.manifest.task)}_{slug(run.manifest.model.rstrip('/').rsplit('/', 1)[-1])}"


def figure_2(run: RunDigest) -> Drawn:
    """Unique neurons of each whole chunk of 32 tokens against its mean self-certainty and entropy (section 3.2)."""
    require(run, "signals")
    from scipy.stats import pearsonr

    chunks = np.concatenate([p.chunks for p in run.problems]).astype(float)
    rng = np.random.default_rng(0)
    shown = chunks if len(chunks) <= _MOST_POINTS else chunks[rng.choice(len(chunks), _MOST_POINTS, replace=False)]
    neurons, entropy, certainty = shown.T
    with canvas(6.8, 2.9, columns=2) as (figure, axes):
        told = []
        signals = ((2, "self-certainty (nats)", certainty), (1, "entropy (nats)", entropy))
        for axis, (column, label, values) in zip(axes, signals, strict=True):
            axis.plot(neurons, values, ".", color=CORRECT, alpha=0.25, markersize=3, rasterized=True, markeredgewidth=0)
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
    return Drawn(_name("fig2", run), title, caption + settings(run), figure, data)


def _p_value(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _r_interval(run: RunDigest, column: int) -> str:
    """95 % of the correlations over resampled problems, from each problem's sums."""
    if len(run.problems) < 2:
        return ""
    x, y = ([p.chunks[:, c].astype(float) for p in run.problems] for c in (0, column))
    pairs = list(zip(x, y, strict=True))
    sums = np.array([[len(a), a.sum(), b.sum(), (a * a).sum(), (b * b).sum(), (a * b).sum()] for a, b in pairs])
    n, sx, sy, sxx, syy, sxy = metrics.drawn_sums(sums, seed=0).T
    spread = np.sqrt((n * sxx - sx**2).clip(0) * (n * syy - sy**2).clip(0))
    r = np.divide(n * sxy - sx * sy, spread, out=np.full(len(n), np.nan), where=spread > 0)
    low, high = np.nanquantile(r, [0.025, 0.975])
    return f" [{low:.3f}, {high:.3f}]"


def figure_3(run: RunDigest) -> Drawn:
    """t-SNE on 1 - S of one problem's samples, coloured by their mean entropy (section 3.2)."""
    require(run, "group", "entropy")
    problem = _example(run)
    x, y = embedded(problem).T
    with canvas(3.9, 3.1) as (figure, (axis,)):
        points = axis.scatter(x, y, c=problem.entropy, cmap="cividis", s=28, edgecolors="black", linewidths=0.4)
        figure.colorbar(points, ax=axis, label="mean entropy (nats)")
        _bare(axis)
    data = {"problem": [problem.problem] * problem.n, "sample": range(problem.n), "x": x, "y": y}
    caption = f"{_placed(problem)} {settings(run)}"
    title = "Fig. 3: samples placed by neuron agreement, coloured by entropy"
    return Drawn(_name("fig3", run), title, caption, figure, {**data, "mean_entropy": problem.entropy})


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
    data = {"problem": [problem.problem] * problem.n, "sample": range(problem.n), "x": x, "y": y}
    title = "Fig. 4a: samples placed by neuron agreement, by correctness"
    caption = f"{_placed(problem)} {settings(run)}"
    return Drawn(_name("fig4a", run), title, caption, figure, {**data, "correct": problem.correct})


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
        low, high = histograms(axis, sizes, correct)
        axis.set(xlabel="activated neurons", ylabel="share of samples")
        axis.legend()
    caption = (
        f"{_separation(metrics.auroc(low, high))} Within a problem, in the mean over those with both: "
        f"{_within(run, lambda p: p.sizes[-1])}. {settings(run)}"
    )
    data = {"problem": names, "activated": sizes, "correct": correct}
    return Drawn(_name("fig4b", run), "Fig. 4b: activated neurons by correctness", caption, figure, data)


def histograms(axis: "Axes", values: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both distributions over the same bins; returns the values of the correct and of the incorrect samples."""
    low, high = values[correct == 1], values[correct == 0]
    edges = np.histogram_bin_edges(np.concatenate([low, high]), bins=24)
    for part, colour, fill, label in ((low, CORRECT, True, "correct"), (high, INCORRECT, False, "incorrect")):
        share, _ = np.histogram(part, edges)
        style = {"alpha": 0.35} if fill else {"linewidth": 1.4}
        axis.stairs(share / max(1, len(part)), edges, color=colour, fill=fill, label=label, **style)  # type: ignore[arg-type]
    return low, high


def _separation(auroc: float) -> str:
    return f"AUROC {auroc:.3f}: the probability that a correct sample has fewer than an incorrect one (0.5: none)."


def _within(run: RunDigest, value: Callable[[ProblemDigest], np.ndarray]) -> str:
    """Mean AUROC within the problems that have both, where the difficulty of problems plays no part."""
    pairs = [(value(p)[p.correct == 1], value(p)[p.correct == 0]) for p in run.problems]
    found = [metrics.auroc(low, high) for low, high in pairs if len(low) and len(high)]
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
    return Drawn(_name("fig4c", run), title, caption, figure, data)


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


def figure_6(runs: Sequence[RunDigest]) -> Drawn:
    """Accuracy of the fewest against the most activated neurons on full answers (section 5.3)."""
    for run in runs:
        require(run, "full", "group", "grades")
    data: dict[str, list] = {key: [] for key in ("task", "model", "selector", "accuracy", "low", "high")}
    with canvas(max(3.4, 1.6 + 1.1 * len(runs)), 2.9) as (figure, (axis,)):
        for offset, (selector, label, colour) in enumerate(
            (("minact", "MinAct", CORRECT), ("maxact", "MaxAct", INCORRECT))
        ):
            found = [_accuracies(run, [(selector, None)])[0] for run in runs]
            place = np.arange(len(runs)) + 0.36 * (offset - 0.5)
            values = 100 * np.array([[e.value, e.low, e.high] for e in found])
            errors = np.abs(values[:, 1:].T - values[:, 0])
            bar = {"hatch": "//", "alpha": 0.75} if offset else {}
            axis.bar(
                place, values[:, 0], 0.34, yerr=errors, capsize=2.5, color=colour, label=label, edgecolor="white",
                error_kw={"linewidth": 1}, **bar,
            )  # fmt: skip
            for run, (accuracy, low, high) in zip(runs, values.tolist(), strict=True):
                row = (run.manifest.task, run.manifest.model, label, accuracy, low, high)
                for key, value in zip(data, row, strict=True):
                    data[key].append(value)
        axis.set_xticks(range(len(runs)), _run_names(runs))
        axis.set(ylabel="accuracy (%)", ylim=(0, 104))
        axis.grid(visible=False, axis="x")
        figure.legend(loc="outside upper center", ncols=2)
    caption = "Bars with 95 % intervals (bootstrap over problems). " + " ".join(settings(run) for run in runs)
    return Drawn("fig6", "Fig. 6: the fewest against the most activated neurons", caption, figure, data)


def _run_names(runs: Sequence[RunDigest]) -> list[str]:
    models = {run.manifest.model for run in runs}
    return [
        literal(run.manifest.task + (f"\n{run.manifest.model.rsplit('/', 1)[-1][:18]}" if len(models) > 1 else ""))
        for run in runs
    ]


def figure_7(run: RunDigest) -> Drawn:
    """Sequence-level top-k against none: neurons kept, and agreement on them, by correctness (section 5.3)."""
    require(run, "group", "grades", "both", "peaks")
    problems = [p for p in run.problems if p.strongest is not None]
    correct = np.concatenate([p.correct for p in problems])
    sizes = np.concatenate([p.sizes[-1] for p in problems])
    full = [(p.similarity[-1].sum(axis=1) - 1) / (p.n - 1) for p in problems]
    data: dict[str, object] = {"problem": [p.problem for p in problems for _ in range(p.n)], "correct": correct}
    with canvas(8.2, 4.2, columns=len(STRONGEST) + 1, rows=2) as (figure, axes):
        for j, k in enumerate((*STRONGEST, None)):
            kept = sizes if k is None else np.minimum(sizes, k)
            agreement = np.concatenate(full if k is None else [p.strongest[j] for p in problems])  # type: ignore[index]
            label = "no top-k" if k is None else f"top-k = {k // 1000}K{' (keeps all)' if k >= sizes.max() else ''}"
            for axis, values in ((axes[j], kept), (axes[len(STRONGEST) + 1 + j], agreement)):
                low, high = histograms(axis, values, correct)
                fewer = metrics.auroc(low, high)
                shown = fewer if values is kept else 1 - fewer
                axis.set_title(f"{label}\nAUROC {shown:.3f}" if values is kept else f"AUROC {shown:.3f}")
                axis.ticklabel_format(axis="x", useOffset=False)
                axis.locator_params(axis="x", nbins=3)
            data |= {f"neurons_{k or 'all'}": kept, f"agreement_{k or 'all'}": agreement}
        for row, label in enumerate(("neurons kept", "mean agreement")):
            for axis in axes[row * (len(STRONGEST) + 1) :][: len(STRONGEST) + 1]:
                axis.set_xlabel(label)
            axes[row * (len(STRONGEST) + 1)].set_ylabel("share of samples")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=2)
    caption = (
        "Each sample keeps the k neurons with its largest peak scores. Above: neurons kept, AUROC that a correct "
        "sample keeps fewer (0.5: no separation; a k below every set's size keeps the same of all). Below: mean agreement "
        f"with the other samples on them, AUROC that a correct sample agrees more. {settings(run)}"
    )
    title = "Fig. 7: sequence-level top-k against none"
    return Drawn(_name("fig7", run), title, caption, figure, data)  # type: ignore[arg-type]


def figure_8(run: RunDigest) -> Drawn:
    """Accuracy and tokens by stop position, from 32 to the longest answer (Figs. 8 to 10, section 5.3)."""
    require(run, "full", "group", "grades")
    positions = run.positions
    data: dict[str, list] = {"selector": [], "position": [], "accuracy": [], "low": [], "high": []}
    data |= {"tokens": [], "computed_tokens": []}
    average = metrics.over_problems(run.problems, lambda p: metrics.accuracy(p, "avg", None))
    with canvas(6.8, 3.1, columns=2) as (figure, axes):
        for (selector, label), colour, style, mark in zip(SELECTOR_LABELS.items(), LINES, STYLES, MARKS, strict=False):
            found = _accuracies(run, [(selector, position) for position in positions])
            values = 100 * np.array([[e.value, e.low, e.high] for e in found])
            tokens = [sum(metrics.stopped_tokens(p, selector, at) for p in run.problems) for at in positions]
            once = [sum(metrics.computed_tokens(p, selector, at) for p in run.problems) for at in positions]
            look = {"color": colour, "linestyle": style, "marker": mark, "markersize": 4}
            axes[0].plot(positions, values[:, 0], label=label, **look)
            axes[1].plot(positions, tokens, **look)
            columns = ([label] * len(positions), positions, *values.T, tokens, once)
            for key, column in zip(data, columns, strict=True):
                data[key] += list(column)
        axes[0].axhline(100 * average.value, color="black", linewidth=1, label=f"Avg@{run.manifest.n}")
        full = sum(metrics.full_tokens(p) for p in run.problems)
        axes[1].axhline(full, color="black", linewidth=1)
        computed = np.array(data["computed_tokens"][: len(positions)])
        axes[1].plot(positions, computed, color="#767676", linewidth=2.5, alpha=0.6, label="kNN, shared prefixes once")
        axes[0].set(ylabel="accuracy (%)")
        axes[1].set(ylabel="tokens", yscale="log")
        for axis in axes:
            axis.set_xscale("log", base=2)
            axis.set(xlabel="stop position (tokens)")
            axis.set_xticks(_ticks(positions), [f"{p:,}" for p in _ticks(positions)], minor=False)
            axis.minorticks_off()
        axes[1].legend(loc="lower right")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=5)
    caption = (
        f"The last position is the longest answer ({positions[-1]:,} tokens); the black lines are all {run.manifest.n} "
        f"full answers: accuracy {_percent(average)}, {full:,} tokens. Each point's 95 % interval is in the CSV file; "
        f"kNN at {CHUNK}: {_percent(metrics.Estimate(*(x / 100 for x in _first(data))))}. Tokens as the paper counts "
        f"them: n prefixes and the winner's rest. {settings(run)}"
    )
    title = "Figs. 8-10: accuracy and tokens by stop position"
    return Drawn(_name("fig8", run), title, caption, figure, data)


def _first(data: Mapping[str, list]) -> tuple[float, float, float]:
    return data["accuracy"][0], data["low"][0], data["high"][0]


def _percent(estimate: metrics.Estimate) -> str:
    text = f"{100 * estimate.value:.1f} %"
    return text if np.isnan(estimate.low) else f"{text} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def _ticks(positions: Sequence[int]) -> list[int]:
    """At most six positions, the first and the last among them; none so close to the last that labels touch."""
    inner = [p for p in positions[:-1] if 1.5 * p < positions[-1]]
    return [*inner[:: -(-len(inner) // 5)], positions[-1]] if inner else [positions[-1]]


def _accuracies(run: RunDigest, asked: Sequence[tuple[str, int | None]]) -> list[metrics.Estimate]:
    """Estimates of (selector, position) pairs."""
    return metrics.estimates(np.array([[metrics.accuracy(p, *pair) for pair in asked] for p in run.problems]))


PER_RUN: Mapping[str, Callable[[RunDigest], Drawn]] = {
    "Fig. 2": figure_2,
    "Fig. 3": figure_3,
    "Fig. 4a": figure_4a,
    "Fig. 4b": figure_4b,
    "Fig. 4c": figure_4c,
    "Fig. 7": figure_7,
    "Figs. 8-10": figure_8,
}


def all_figures(runs: Sequence[RunDigest]) -> tuple[list[Drawn], list[str]]:
    """The figures that these runs give, and a line for each of the others."""
    drawn, missing = [], []
    jobs: list[tuple[str, Callable[[], Drawn]]] = [
        (name, lambda make=make, run=run: make(run))
        for run in runs
        for name, make in PER_RUN.items()  # type: ignore[misc]
    ]
    for name, make in [*jobs, ("Fig. 6", lambda: figure_6(runs))]:
        try:
            drawn.append(make())
        except Missing as error:
            missing.append(f"{name}: {error}")
    return drawn, missing
