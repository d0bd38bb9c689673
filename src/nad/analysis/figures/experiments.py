"""The figures of the paper's experiments (section 5): 6, 7 and 8 to 10. Each returns a Drawn, or raises Missing."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from nad.analysis.figures.canvas import (
    CORRECT,
    INCORRECT,
    LINES,
    MARKS,
    SELECTOR_LABELS,
    STYLES,
    Drawn,
    canvas,
    file_name,
    histograms,
    literal,
    settings,
)
from nad.analysis.requirements import Missing, lacks, require
from nad.analysis.statistics import Estimate, auroc
from nad.analysis.summary import STRONGEST, RunDigest, tallies_of
from nad.stopping import CHUNK


def figure_6(runs: Sequence[RunDigest]) -> Drawn:
    """Accuracy of the fewest against the most activated neurons on full answers (section 5.3)."""
    left_out = [line for run in runs if (line := lacks(run, "full", "group", "grades"))]
    runs = [run for run in runs if not lacks(run, "full", "group", "grades")]
    if not runs:
        raise Missing("; ".join(left_out))
    data: dict[str, list] = {key: [] for key in ("task", "model", "selector", "accuracy", "low", "high")}
    with canvas(max(3.4, 1.6 + 1.1 * len(runs)), 2.9) as (figure, (axis,)):
        for offset, (selector, label, colour) in enumerate(
            (("minact", "MinAct", CORRECT), ("maxact", "MaxAct", INCORRECT))
        ):
            found = [tallies_of(run.problems, [(selector, None)])[0].accuracy for run in runs]
            place = np.arange(len(runs)) + 0.36 * (offset - 0.5)
            values = 100 * np.array([[e.value, e.low, e.high] for e in found])
            errors = np.abs(values[:, 1:].T - values[:, 0])
            axis.bar(
                place, values[:, 0], 0.34, yerr=errors, capsize=2.5, color=colour, label=label, edgecolor="white",
                error_kw={"linewidth": 1}, hatch="//" if offset else None, alpha=0.75 if offset else 1,
            )  # fmt: skip
            for run, (accuracy, low, high) in zip(runs, values.tolist(), strict=True):
                row = (run.manifest.task, run.manifest.model, label, accuracy, low, high)
                for key, value in zip(data, row, strict=True):
                    data[key].append(value)
        axis.set_xticks(range(len(runs)), _run_names(runs))
        axis.set(ylabel="accuracy (%)", ylim=(0, 104))
        axis.grid(visible=False, axis="x")
        figure.legend(loc="outside upper center", ncols=2)
    told = [*map(settings, runs), *(f"Left out: {line}." for line in left_out)]
    caption = " ".join(["Bars with 95 % intervals (bootstrap over problems).", *told])
    return Drawn("fig6", "Fig. 6: the fewest against the most activated neurons", caption, figure, data)


def _run_names(runs: Sequence[RunDigest]) -> list[str]:
    """Short enough to stand side by side; the caption has the full names."""
    models = {run.manifest.model for run in runs}
    lines = [[m.task] + [m.model.rsplit("/", 1)[-1]] * (len(models) > 1) for m in (run.manifest for run in runs)]
    return ["\n".join(literal(line if len(line) < 17 else f"{line[:15]}…") for line in pair) for pair in lines]


def figure_7(run: RunDigest) -> Drawn:
    """Sequence-level top-k against none: neurons kept, and agreement on them, by correctness (section 5.3)."""
    require(run, "group", "grades", "both", "peaks")
    problems = [p for p in run.problems if p.strongest is not None]
    strongest = [p.strongest for p in problems if p.strongest is not None]
    correct = np.concatenate([p.correct for p in problems])
    sizes = np.concatenate([p.sizes[-1] for p in problems])
    full = [(p.similarity[-1].sum(axis=1) - 1) / (p.n - 1) for p in problems]
    data: dict[str, Any] = {"problem": [p.problem for p in problems for _ in range(p.n)], "correct": correct}
    with canvas(8.2, 4.2, columns=len(STRONGEST) + 1, rows=2) as (figure, axes):
        for j, k in enumerate((*STRONGEST, None)):
            kept = sizes if k is None else np.minimum(sizes, k)
            agreement = np.concatenate(full if k is None else [rows[j] for rows in strongest])
            label = "no top-k" if k is None else f"top-k = {k // 1000}K{' (keeps all)' if k >= sizes.max() else ''}"
            for axis, values in ((axes[j], kept), (axes[len(STRONGEST) + 1 + j], agreement)):
                right, wrong = histograms(axis, values, correct)
                shown = auroc(-right, -wrong) if values is kept else auroc(right, wrong)
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
        "sample keeps fewer (0.5: no separation; a k below every set's size keeps the same of all). Below: mean "
        f"agreement with the other samples on them, AUROC that a correct sample agrees more. {settings(run)}"
    )
    title = "Fig. 7: sequence-level top-k against none"
    return Drawn(file_name("fig7", run), title, caption, figure, data)


_WIDE = 20
"""Token counts this many times apart are drawn on a logarithmic axis."""


def figure_8(run: RunDigest) -> Drawn:
    """Accuracy and tokens by stop position, from 32 to the longest answer (Figs. 8 to 10, section 5.3)."""
    require(run, "full", "group", "grades")
    positions = run.positions
    data: dict[str, list] = {"selector": [], "position": [], "accuracy": [], "low": [], "high": []}
    data |= {"tokens": [], "computed_tokens": []}
    average, first = tallies_of(run.problems, [("avg", None), ("knn", CHUNK)])
    with canvas(6.8, 3.1, columns=2) as (figure, axes):
        for (selector, label), colour, style, mark in zip(SELECTOR_LABELS.items(), LINES, STYLES, MARKS, strict=False):
            found = tallies_of(run.problems, [(selector, position) for position in positions])
            values = 100 * np.array([[t.accuracy.value, t.accuracy.low, t.accuracy.high] for t in found])
            tokens = [t.sampled for t in found]
            look: dict[str, Any] = {"color": colour, "linestyle": style, "marker": mark, "markersize": 4}
            axes[0].plot(positions, values[:, 0], label=label, **look)
            axes[1].plot(positions, tokens, **look)
            columns = ([label] * len(positions), positions, *values.T, tokens, [t.computed for t in found])
            for key, column in zip(data, columns, strict=True):
                data[key] += list(column)
        axes[0].axhline(100 * average.accuracy.value, color="black", linewidth=1, label=f"Avg@{run.manifest.n}")
        full = average.sampled
        axes[1].axhline(full, color="black", linewidth=1)
        computed = np.array(data["computed_tokens"][: len(positions)])
        axes[1].plot(positions, computed, color="#767676", linewidth=2.5, alpha=0.6, label="kNN, shared prefixes once")
        axes[0].set(ylabel="accuracy (%)")
        # A logarithmic axis over less than a decade would have no tick.
        axes[1].set(ylabel="tokens", yscale="log" if full >= _WIDE * computed.min() else "linear")
        axes[1].yaxis.set_major_formatter("{x:,.0f}")
        for axis in axes:
            axis.set_xscale("log", base=2)
            axis.set(xlabel="stop position (tokens)")
            axis.set_xticks(_ticks(positions), [f"{p:,}" for p in _ticks(positions)], minor=False)
            axis.xaxis.minorticks_off()
        axes[1].legend(loc="lower right")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=5)
    caption = (
        f"The last position is the longest answer ({positions[-1]:,} tokens); the black lines are all "
        f"{run.manifest.n} full answers: accuracy {_percent(average.accuracy)}, {full:,} tokens. Each point's 95 % "
        f"interval is in the CSV file; kNN at {CHUNK}: {_percent(first.accuracy)}. Tokens as the paper counts them: "
        f"n prefixes and the winner's rest. {settings(run)}"
    )
    title = "Figs. 8-10: accuracy and tokens by stop position"
    return Drawn(file_name("fig8", run), title, caption, figure, data)


def _percent(estimate: Estimate) -> str:
    text = f"{100 * estimate.value:.1f} %"
    return text if np.isnan(estimate.low) else f"{text} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def _ticks(positions: Sequence[int]) -> list[int]:
    """At most six positions, the first and the last among them; none so close to the last that labels touch."""
    inner = [p for p in positions[:-1] if 1.5 * p <= positions[-1]]
    return [*inner[:: -(-len(inner) // 5)], positions[-1]] if inner else [positions[-1]]
