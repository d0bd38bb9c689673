"""The tables and figures of docs/RESULTS.md from the extract.

python runs/results.py        rewrites what stands between its marks in docs/RESULTS.md, and docs/images/
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from agreements import BANDS
from curves import draw
from evidence import (
    AT_STOPS,
    END,
    METHODS,
    Method,
    Problem,
    accuracy,
    average,
    cost,
    dbscan,
    difference,
    follow,
    knn,
    load,
    majority,
    medoid,
    mixed,
    right_wrong_auroc,
)
from extract import FOLDER, POSITIONS
from jaxtyping import Float

from nad.analysis.outcomes import MATCHED_WITHIN
from nad.analysis.statistics import correlation, estimates, pairs_above
from nad.stopping import Schedule, parse_prune, parse_stop

PAGE = Path(__file__).parents[1] / "docs" / "RESULTS.md"
TASKS = ("gsm8k", "svamp", "mbpp_sanitized", "humaneval")
STOPS = range(1, END)
"""The places in POSITIONS that the tables show as fixed stops: 16 tokens to 384."""
SUBSETS = 40
"""Random sets of samples for each smaller n."""

Data = Mapping[str, Sequence[Problem]]
Row = Sequence[str]

METHODS_OF_MORE = [name for name in METHODS if name != "medoid@bigrams"]
"""What the extract of many samples has everything for."""


def read(folder: Path = FOLDER) -> Data:
    """The extracts that are there."""
    return {task: load(task, folder) for task in TASKS if (folder / f"{task}.parquet").exists()}


def with_more() -> Data:
    """The problems with 64 samples. A task has an extract for each sitting: TASK-64, then TASK-64-PLACE by the first
    problem's place.
    """
    found: dict[str, Sequence[Problem]] = {}
    for task in TASKS:
        files = sorted(FOLDER.glob(f"{task}-64*.parquet"), key=lambda file: (len(file.stem), file.stem))
        if files:
            found[task] = [problem for file in files for problem in load(file.stem, FOLDER)]
    return found


def with_all(data: Data) -> Data:
    """And all problems together, each counting alike."""
    return {**data, "all": [problem for problems in data.values() for problem in problems]}


def markdown(header: Row, rows: Iterable[Row]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def points(values: Float[np.ndarray, " problems"], base: Float[np.ndarray, " problems"]) -> str:
    """A difference in percentage points, with its interval."""
    found = difference(values, base)
    return f"{100 * found.value:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


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
            _average_of(problems),
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
    rows = [("majority vote", *(_vote(problems) for problems in data.values()), "-")]
    rows += [(name, *(_beside(problems, method) for problems in runs.values())) for name, method in METHODS.items()]
    return markdown(("method", *runs), rows)


def _vote(problems: Sequence[Problem]) -> str:
    voting = any((p.vote >= 0).any() for p in problems)
    return points(majority(problems), average(problems)) if voting else "-"


def _beside(problems: Sequence[Problem], method: Method, place: int = END) -> str:
    return f"{points(accuracy(problems, method, place), average(problems))}; {_auroc(problems, method, place)}"


def _auroc(problems: Sequence[Problem], method: Method, place: int = END) -> str:
    found = [right_wrong_auroc(p, method(p, place)) for p in problems]
    return f"{np.nanmean(found):.2f}"


def stops(data: Data) -> str:
    runs = with_all(data)
    rows = []
    for place in (*STOPS, END):
        label = "none" if place == END else str(POSITIONS[place])
        rows.append((label, *(f"{_gain(p, place)}; {_gain_of(p, medoid('tokens'), place)}" for p in runs.values())))
    return markdown(("stop", *runs), rows)


def every_stop(data: Data) -> str:
    """Every method that can look at prefixes, over all problems."""
    problems = with_all(data)["all"]
    places = (*STOPS, END)
    costs = [f"{100 * cost(problems, medoid(), place).mean():.0f} %" for place in places]
    rows = [("computed, medoid", *costs)]
    rows += [(name, *(_gain_of(problems, METHODS[name], place) for place in places)) for name in AT_STOPS]
    return markdown(("method", *("none" if place == END else str(POSITIONS[place]) for place in places)), rows)


def _gain(problems: Sequence[Problem], place: int) -> str:
    """The cost, the gain over the mean answer, and the AUROC of the medoid of neurons."""
    return f"{100 * cost(problems, medoid(), place).mean():.0f} %: {_gain_of(problems, medoid(), place)}"


def _gain_of(problems: Sequence[Problem], method: Method, place: int) -> str:
    gain = (accuracy(problems, method, place) - average(problems)).mean()
    return f"{100 * gain:+.1f}, {_auroc(problems, method, place)}"


def numbers(data: Data) -> str:
    """Of the runs of the other tables, and of those with more samples of fewer problems."""
    runs = {**data, **{f"{task}, {len(problems)} problems": problems for task, problems in with_more().items()}}
    rows = [
        (str(n), *(_accuracies_of(n, problems) if n <= problems[0].n else "" for problems in runs.values()))
        for n in (2, 4, 8, 16, 32, 64)
        if n <= max(problems[0].n for problems in runs.values())
    ]
    return markdown(("n", *runs), rows)


def more_samples(data: Data) -> str:
    """Of the problems with 64 samples: full answers, then the stops."""
    runs = with_all(with_more())
    known = {problem.name: problem for problems in data.values() for problem in problems}
    rows = [
        ("Avg@64", *map(_average_of, runs.values())),
        ("Avg@16 of the other runs", *(_average_of([known[p.name] for p in some]) for some in runs.values())),
        ("pass@64", *(f"{100 * np.mean([p.correct.max() for p in problems]):.1f} %" for problems in runs.values())),
        ("majority vote", *(_vote(problems) for problems in with_more().values()), "-"),
    ]
    rows += [(name, *(_beside(problems, METHODS[name]) for problems in runs.values())) for name in METHODS_OF_MORE]
    for place in STOPS:
        label = f"at {POSITIONS[place]}"
        rows.append((label, *(f"{_gain(p, place)}; {_gain_of(p, medoid('tokens'), place)}" for p in runs.values())))
    rows.append(("`auto`", *(_followed(problems, parse_stop("auto")) for problems in runs.values())))  # type: ignore[arg-type]
    return markdown(("method", *(f"{name}, {len(problems)} problems" for name, problems in runs.items())), rows)


def _average_of(problems: Sequence[Problem]) -> str:
    return f"{100 * average(problems).mean():.1f} %"


def _accuracies_of(n: int, problems: Sequence[Problem]) -> str:
    """In per cent: of the medoid of neurons, of the medoid of tokens, of whoever knows the right answers."""
    drawn = [_smaller(problem, n) for problem in problems]

    def mean(right: Callable[[Problem], float]) -> float:
        return 100 * float(np.mean([np.mean([right(some) for some in sets]) for sets in drawn]))

    def chosen_by(method: Method) -> float:
        return mean(lambda some: some.correct[int(np.argmax(method(some, END)))])

    return f"{chosen_by(medoid()):.1f}, {chosen_by(medoid('tokens')):.1f}; {mean(lambda some: some.correct.max()):.1f}"


def _smaller(problem: Problem, n: int) -> list[Problem]:
    if n == problem.n:
        return [problem]
    generator = np.random.default_rng(n)
    return [problem.among(sorted(generator.permutation(problem.n)[:n])) for _ in range(SUBSETS)]


def correlations(data: Data) -> str:
    rows = []
    for name in ("minact", "shortest", "logprob", "entropy", "self-certainty", "deepconf"):
        method = METHODS[name]
        cells = []
        for problems in data.values():
            values = np.concatenate([method(p, END) for p in problems])
            correct = np.concatenate([p.correct for p in problems])
            over_all = pairs_above(values, (correct == 1)[:, None] & (correct == 0)[None, :])
            cells.append(f"{over_all or np.nan:.2f}, {_auroc(problems, method)}")
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
    rows = [("medoid, as it is", *(_beside(problems, medoid()) for problems in runs.values()))]
    rows += [(name, *(_beside(problems, method) for problems in runs.values())) for name, method in CHOICES.items()]
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


def halves(problems: Sequence[Problem]) -> tuple[Sequence[Problem], Sequence[Problem]]:
    """For developing, the problems at even places; for judging, the others."""
    return problems[::2], problems[1::2]


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


def schedules_of(n: int) -> Mapping[str, Schedule]:
    specs = [f"{n}:16,4:128", f"{n}:32,4:128", f"{n}:64,4:256", f"{n}:16,8:32,4:64,2:128", f"{n}:32,8:64,4:128,2:256"]
    rules = {spec: parse_prune(spec) for spec in specs}
    autos = ("auto:window=1", "auto", "auto:window=3", "auto:window=3,distinct=0.75")
    return {**rules, **{spec: parse_stop(spec) for spec in autos}}  # type: ignore[dict-item]


def schedules(data: Data, judged: bool) -> str:
    parts = with_all({task: halves(problems)[judged] for task, problems in data.items()})
    n = next(iter(data.values()))[0].n
    labels = {place: "none" if place == END else str(POSITIONS[place]) for place in (*STOPS, END)}
    rows = [(label, *(_gain(p, place) for p in parts.values())) for place, label in labels.items()]
    for spec, rule in schedules_of(n).items():
        rows.append((f"`{spec}`", *(_followed(problems, rule) for problems in parts.values())))
    return markdown(("stop", *parts), rows)


def _followed(problems: Sequence[Problem], rule: Schedule) -> str:
    """The cost and the gain of a schedule."""
    ends = [follow(p, medoid(), rule) for p in problems]
    gain = np.mean([e.correct for e in ends]) - average(problems).mean()
    return f"{100 * np.mean([e.share for e in ends]):.0f} %: {100 * gain:+.1f}"


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
                f"{_auroc(same, medoid(), place)}, {_auroc(changed, medoid(), place)}"
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
