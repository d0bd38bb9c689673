"""The tables of docs/RESULTS.md about the number of samples, and about the runs with 64."""

import json
from collections.abc import Callable, Sequence

import numpy as np
from cells import STOPS, Data, average_of, beside, followed, gain, gain_of, markdown, points, vote, with_all, with_more
from evidence import END, METHODS, Method, Problem, average, load, medoid
from extract import FOLDER, POSITIONS

from nad.stopping import parse_stop

SUBSETS = 40
"""Random sets of samples for each smaller n."""
METHODS_OF_MORE = [name for name in METHODS if name != "medoid@bigrams"]
"""What the extract of many samples has everything for."""


def numbers(data: Data) -> str:
    """Of the runs of the other tables, and of those with more samples of fewer problems."""
    runs = {**data, **{f"{task}, {len(problems)} problems": problems for task, problems in with_more().items()}}
    rows = [
        (str(n), *(_accuracies_of(n, problems) if n <= problems[0].n else "" for problems in runs.values()))
        for n in (2, 4, 8, 16, 32, 64)
        if n <= max(problems[0].n for problems in runs.values())
    ]
    return markdown(("n", *runs), rows)


def more_samples(_: Data) -> str:
    """Of the problems with 64 samples: full answers, then the stops."""
    runs = with_all(with_more())
    rows = [
        ("Avg@64", *map(average_of, runs.values())),
        ("pass@64", *(f"{100 * np.mean([p.correct.max() for p in problems]):.1f} %" for problems in runs.values())),
        ("majority vote", *(vote(problems) for problems in with_more().values()), "-"),
    ]
    rows += [(name, *(beside(problems, METHODS[name]) for problems in runs.values())) for name in METHODS_OF_MORE]
    for place in STOPS:
        label = f"at {POSITIONS[place]}"
        rows.append((label, *(f"{gain(p, place)}; {gain_of(p, medoid('tokens'), place)}" for p in runs.values())))
    rows.append(("`auto`", *(followed(problems, parse_stop("auto")) for problems in runs.values())))  # type: ignore[arg-type]
    return markdown(("method", *(f"{name}, {len(problems)} problems" for name, problems in runs.items())), rows)


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


def machines(data: Data) -> str:
    """The problems of the first sitting with 64 samples, against the 16 samples that another machine drew of them."""
    rows = []
    for task, problems in data.items():
        if not (FOLDER / f"{task}-64.parquet").exists():
            continue
        many, known = load(f"{task}-64", FOLDER), {problem.name: problem for problem in problems}
        few, all_of_many = average([known[p.name] for p in many]), average(many)
        made = [json.loads((FOLDER / f"{name}.json").read_text())["hardware"] for name in (task, f"{task}-64")]
        means = [f"{100 * values.mean():.1f} % ({on})" for values, on in zip((few, all_of_many), made, strict=True)]
        related = f"{np.corrcoef(few, all_of_many)[0, 1]:.2f}"
        rows.append((task, str(len(many)), *means, points(all_of_many, few), related))
    return markdown(("task", "problems", "Avg@16", "Avg@64", "difference", "correlation over problems"), rows)
