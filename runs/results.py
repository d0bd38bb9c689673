"""The tables and figures of docs/RESULTS.md from the extract.

python runs/results.py        rewrites what stands between its marks in docs/RESULTS.md, and docs/images/
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from agreements import BANDS
from cells import Data, average_of, beside, halves, markdown, points, ranked, read, vote, with_all
from curves import draw
from evidence import (
    END,
    METHODS,
    Method,
    Problem,
    accuracy,
    average,
    dbscan,
    knn,
    load,
    medoid,
    mixed,
)
from extract import FOLDER, POSITIONS
from jaxtyping import Float
from more_samples import machines, more_samples, numbers
from stop_tables import every_stop, schedules, stops

from nad.analysis.outcomes import MATCHED_WITHIN
from nad.analysis.statistics import correlation, estimates, pairs_above

PAGE = Path(__file__).parents[1] / "docs" / "RESULTS.md"


def tasks(data: Data) -> str:
    header = (
        "task",
        "problems",
        "n",
        "Avg@n",
        "pass@n",
        "problems with right and wrong samples",
        "tokens a sample",
        "computed / sampled",
        "distinct at 32",
    )
    rows = [
        (
            task,
            str(len(problems)),
            str(problems[0].n),
            average_of(problems),
            f"{100 * np.mean([p.correct.max() for p in problems]):.1f} %",
            f"{sum(0 < p.correct.mean() < 1 for p in problems)}",
            f"{np.mean([p.length.mean() for p in problems]):.0f}",
            f"{np.mean([p.computed(POSITIONS[END]) / p.length.sum() for p in problems]):.2f}",
            f"{np.mean([p.distinct(32) for p in problems]):.1f}",
        )
        for task, problems in data.items()
    ]
    return markdown(header, rows)


def full(data: Data) -> str:
    runs = with_all(data)
    rows = [("majority vote", *(vote(problems) for problems in data.values()), "-")]
    rows += [(name, *(beside(problems, method) for problems in runs.values())) for name, method in METHODS.items()]
    return markdown(("method", *runs), rows)


def correlations(data: Data) -> str:
    rows = []
    for name in ("minact", "shortest", "logprob", "entropy", "self-certainty", "deepconf"):
        method = METHODS[name]
        cells = []
        for problems in data.values():
            values = np.concatenate([method(p, END) for p in problems])
            correct = np.concatenate([p.correct for p in problems])
            over_all = pairs_above(values, (correct == 1)[:, None] & (correct == 0)[None, :])
            cells.append(f"{over_all or np.nan:.2f}, {ranked(problems, method)}")
        rows.append((name, *cells))
    return markdown(("score", *data), rows)


def neurons_of_chunks(data: Data) -> str:
    """Fig. 2: over all chunks of 32 tokens, and within a problem."""
    rows = []
    for label, column in (("entropy", 1), ("self-certainty", 2)):
        cells = []
        for problems in with_all(data).values():
            x, y = ([p.chunks[:, c] for p in problems] for c in (0, column))
            over_all = correlation(x, y)
            alone = [correlation([a], [b]).value for a, b in zip(x, y, strict=True)]
            within = estimates(np.array(alone)[:, None])[0]
            cells.append("; ".join(f"{e.value:.2f} [{e.low:.2f}, {e.high:.2f}]" for e in (over_all, within)))
        rows.append((label, *cells))
    return markdown(("unique neurons of a chunk and its mean", *with_all(data)), rows)


def texts(data: Data) -> str:
    runs = with_all(data)
    rows = [
        (name, *(points(accuracy(p, METHODS[name]), accuracy(p, METHODS[f"{name}@tokens"])) for p in runs.values()))
        for name in ("knn", "medoid", "dbscan")
    ]
    both = mixed(("neurons", 0.5), ("tokens", 0.5))
    for name, other in (("medoid", medoid()), ("medoid@tokens", medoid("tokens"))):
        rows.append(
            (
                f"both, medoid of the sum, to {name}",
                *(points(accuracy(p, both), accuracy(p, other)) for p in runs.values()),
            )
        )
    return markdown(("neurons to tokens", *runs), rows)


def length(data: Data) -> str:
    rows = []
    for task, problems in data.items():
        found = []
        pairs = 0
        for problem in problems:
            apart = np.abs(problem.length[:, None] - problem.length[None, :])
            near = apart <= MATCHED_WITHIN * np.maximum(problem.length[:, None], problem.length[None, :])
            near &= (problem.correct == 1)[:, None] & (problem.correct == 0)[None, :]
            pairs += int(near.sum())
            if near.any():
                fewest = -problem.activated[END].astype(float)
                found.append((pairs_above(fewest, near), pairs_above(-problem.length.astype(float), near)))
        means = np.mean(np.array(found, dtype=float), axis=0)
        rows.append((task, str(len(found)), str(pairs), f"{means[0]:.2f}", f"{means[1]:.2f}"))
    return markdown(("task", "problems", "pairs", "minact", "shortest"), rows)


CHOICES: Mapping[str, Method] = {
    **{f"knn, k = {k}": knn(k=k) for k in (1, 3, 5, 10)},
    **{f"dbscan, quantile {q}": dbscan(quantile=q) for q in (0.1, 0.3, 0.5)},
    **{f"medoid, layers {i + 1}/{BANDS}": medoid(f"layers {i + 1}/{BANDS}") for i in range(BANDS)},
    "medoid, peaks as weights": medoid("peaks"),
    **{f"medoid, {k:,} strongest neurons": medoid(f"strongest {k}") for k in (500, 2000, 8000)},
}


def choices(data: Data) -> str:
    runs = with_all(data)
    rows = [("medoid, as it is", *(beside(problems, medoid()) for problems in runs.values()))]
    rows += [(name, *(beside(problems, method) for problems in runs.values())) for name, method in CHOICES.items()]
    rows.append(("medoid, identical answers once", *(_once(problems) for problems in runs.values())))
    return markdown(("choice", *runs), rows)


def _once(problems: Sequence[Problem]) -> str:
    """The medoid among pairwise different answers."""
    found = []
    for problem in problems:
        longer = np.maximum(problem.length[:, None], problem.length[None, :])
        repeated = np.triu(problem.shared >= longer, k=1).any(axis=0)
        some = problem.among(np.flatnonzero(~repeated).tolist())
        found.append(some.correct[int(np.argmax(medoid()(some, END)))])
    return points(np.array(found), average(problems))


CANDIDATES: Mapping[str, Method] = {
    "rare: log of n / samples with it": medoid("rare"),
    "background: -log of its share elsewhere": medoid("background"),
    "after parting": medoid("parted"),
    "the last 64 tokens": medoid("late"),
    "the last quarter of the layers": medoid(f"layers {BANDS}/{BANDS}"),
    "peaks as weights": medoid("peaks"),
    "medoid + log-probability": lambda p, place: _with_logprob(p, place, "neurons"),
    "tokens + log-probability": lambda p, place: _with_logprob(p, place, "tokens"),
    "log-probability alone": METHODS["logprob"],
}


def _with_logprob(problem: Problem, place: int, of: str) -> Float[np.ndarray, " n"]:
    return _standard(medoid(of)(problem, place)) + _standard(problem.signals["logprob"][place])


def _standard(x: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    spread = x.std()
    return (x - x.mean()) / spread if spread > 1e-9 else np.zeros_like(x)


def candidates(data: Data, judged: bool) -> str:
    parts = with_all({task: halves(problems)[judged] for task, problems in data.items()})
    rows = []
    for name, method in CANDIDATES.items():
        rows.append((name, *(_to_both(problems, method) for problems in parts.values())))
    return markdown(("medoid of, or score", *parts), rows)


def _to_both(problems: Sequence[Problem], method: Method) -> str:
    """The difference to the medoid of neurons, and to that of tokens."""
    found = accuracy(problems, method)
    return "; ".join(points(found, accuracy(problems, medoid(of))) for of in ("neurons", "tokens"))


RULES: Mapping[str, str] = {
    "own": "gates at the token's own position (`position=own`)",
    "chunk": "k = 500 of each chunk of 32 tokens (`per=chunk`)",
    "eta": "every neuron above eta (`eta`)",
}
"""Other activation rules: the suffix of an extract that holds the same answers under it."""


def rules(data: Data) -> str:
    """The same answers under other activation rules: the medoid's accuracy minus the default rule's."""
    rows = []
    for task, problems in data.items():
        for suffix, meaning in RULES.items():
            if not (FOLDER / f"{task}-{suffix}.parquet").exists():
                continue
            others = {p.name: p for p in load(f"{task}-{suffix}", FOLDER)}
            same = [p for p in problems if p.name in others]
            changed = [others[p.name] for p in same]
            cells = [
                f"{points(accuracy(changed, medoid(), place), accuracy(same, medoid(), place))}; "
                f"{ranked(same, medoid(), place)}, {ranked(changed, medoid(), place)}"
                for place in (POSITIONS.index(32), END)
            ]
            rows.append((task, meaning, str(len(same)), *cells))
    return markdown(("task", "rule", "problems", "at 32", "full answers"), rows)


TABLES: Mapping[str, Callable[[Data], str]] = {
    "tasks": tasks,
    "full": full,
    "stops": stops,
    "every stop": every_stop,
    "numbers": numbers,
    "more samples": more_samples,
    "machines": machines,
    "neurons of chunks": neurons_of_chunks,
    "correlations": correlations,
    "texts": texts,
    "length": length,
    "choices": choices,
    "rules": rules,
    "candidates, first half": lambda data: candidates(data, judged=False),
    "candidates, second half": lambda data: candidates(data, judged=True),
    "schedules, first half": lambda data: schedules(data, judged=False),
    "schedules, second half": lambda data: schedules(data, judged=True),
}


def named(page: str) -> list[str]:
    """The tables that the page asks for."""
    return re.findall(r"<!-- (?!end)([^>]+?) -->", page)


def rebuilt(page: str, data: Data) -> str:
    """The page with every table made anew."""

    def table(found: re.Match[str]) -> str:
        return f"<!-- {found[1]} -->\n\n{TABLES[found[1]](data)}\n\n<!-- end -->"

    return re.sub(r"<!-- (?!end)([^>]+?) -->\n.*?<!-- end -->", table, page, flags=re.DOTALL)


def main() -> None:
    data = read()
    PAGE.write_text(rebuilt(PAGE.read_text(), data))
    for file in draw(data, PAGE.parent / "images"):
        print(file)


if __name__ == "__main__":
    main()
