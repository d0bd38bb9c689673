"""The tables of docs/RESULTS.md about where to stop: fixed positions, prunings and auto."""

from collections.abc import Mapping

from cells import STOPS, Data, followed, gain, gain_of, halves, markdown, with_all
from evidence import AT_STOPS, END, METHODS, cost, medoid
from extract import POSITIONS

from nad.stopping import Schedule, parse_prune, parse_stop


def stops(data: Data) -> str:
    runs = with_all(data)
    rows = []
    for place in (*STOPS, END):
        label = "none" if place == END else str(POSITIONS[place])
        rows.append((label, *(f"{gain(p, place)}; {gain_of(p, medoid('tokens'), place)}" for p in runs.values())))
    return markdown(("stop", *runs), rows)


def every_stop(data: Data) -> str:
    """Every method that can look at prefixes, over all problems."""
    problems = with_all(data)["all"]
    places = (*STOPS, END)
    costs = [f"{100 * cost(problems, medoid(), place).mean():.0f} %" for place in places]
    rows = [("computed, medoid", *costs)]
    rows += [(name, *(gain_of(problems, METHODS[name], place) for place in places)) for name in AT_STOPS]
    return markdown(("method", *("none" if place == END else str(POSITIONS[place]) for place in places)), rows)


def schedules_of(n: int) -> Mapping[str, Schedule]:
    specs = [f"{n}:16,4:128", f"{n}:32,4:128", f"{n}:64,4:256", f"{n}:16,8:32,4:64,2:128", f"{n}:32,8:64,4:128,2:256"]
    rules = {spec: parse_prune(spec) for spec in specs}
    autos = ("auto:window=1", "auto", "auto:window=3", "auto:window=3,distinct=0.75")
    return {**rules, **{spec: parse_stop(spec) for spec in autos}}  # type: ignore[dict-item]


def schedules(data: Data, judged: bool) -> str:
    parts = with_all({task: halves(problems)[judged] for task, problems in data.items()})
    n = next(iter(data.values()))[0].n
    labels = {place: "none" if place == END else str(POSITIONS[place]) for place in (*STOPS, END)}
    rows = [(label, *(gain(p, place) for p in parts.values())) for place, label in labels.items()]
    for spec, rule in schedules_of(n).items():
        rows.append((f"`{spec}`", *(followed(problems, rule) for problems in parts.values())))
    return markdown(("stop", *parts), rows)
