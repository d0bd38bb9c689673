"""The samples as they are drawn, for a person to watch: where they stand, how they agree, what is chosen, what it cost.

`POST /api/live` takes a chat request and answers with named server-sent events, in this order:

    accepted  {id, model, n, stop_at, selector, seed, max_tokens, temperature, top_p}
    progress  {position, n, distinct, computed, unfinished, prefix, ended} and now and then
              {neurons, points, agreement}: arrays with an entry a sample
    selected  {index, scores, note, position, candidates, neurons, points, agreement}
    text      {text, rank}
    finished  {result, cost}, or error {error}

`prefix[i]` is the smallest sample with the same tokens as sample i: equal numbers are duplicates. `neurons[i]` counts
the unique neurons so far, `points[i]` is a place in the plane whose distances come closest to 1 - S (Eq. 4), and
`agreement[i]` is the mean of S_ij over the others.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from nad.analysis.report.explorer_data import classical_mds
from nad.decoding import Event, Finished, Progressed, Request, Selected, Text
from nad.neurons.agreement import consensus_matrix
from nad.result_json import result_json
from nad.selection import Candidates, Choice, Selector, selector_spec
from nad.stopping import Progress, stop_label
from nad.types import Group, Result

TOKENS, SECONDS = 4, 0.15
"""A picture of the neurons comes after so many tokens, or so much time."""
_SHARE = 0.25
"""At most this share of the time goes into pictures."""


@dataclass(frozen=True)
class LiveEvent:
    """A named event of the stream."""

    name: str
    data: Mapping[str, Any]


@dataclass(frozen=True)
class Watched:
    """A selector whose neurons are captured in any case, so that they can be shown."""

    selector: Selector

    @property
    def needs(self) -> frozenset[str]:
        return self.selector.needs | {"neurons"}

    def choose(self, candidates: Candidates) -> Choice:
        return self.selector.choose(candidates)


def watched(request: Request) -> Request:
    return replace(request, selector=Watched(request.selector))


def join_live(last: LiveEvent, new: LiveEvent) -> LiveEvent | None:
    """For a reader that is behind: the newest progress with the last picture, texts of one answer together."""
    if last.name == new.name == "progress":
        return LiveEvent("progress", {**last.data, **new.data})
    if last.name == new.name == "text" and last.data["rank"] == new.data["rank"]:
        return LiveEvent("text", {**last.data, "text": last.data["text"] + new.data["text"]})
    return None


def closest(place: Float[np.ndarray, "n 2"], to: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
    """The places turned and mirrored, not stretched, to lie as close as possible to others (Procrustes)."""
    u, _, vt = np.linalg.svd(place.T @ to)
    return place @ u @ vt


@dataclass
class LiveView:
    """Turns the events of one request into what is drawn. It lives in the worker thread."""

    request: Request
    clock: Callable[[], float] = time.monotonic
    _prefix: list[int] = field(default_factory=list)
    _places: np.ndarray | None = None
    _at_token: int = 0
    _at_time: float = 0.0
    _rest_until: float = 0.0

    def __call__(self, event: Event) -> Iterator[LiveEvent]:
        match event:
            case Progressed(progress, snapshot):
                yield LiveEvent("progress", {**self._standing(progress), **self._picture_if_due(progress, snapshot)})
            case Selected(group, choice):
                yield LiveEvent("selected", {**_choice(group, choice), **self._picture(group)})
            case Text(text, rank):
                yield LiveEvent("text", {"text": text, "rank": rank})
            case Finished(result):
                assert isinstance(self.request.selector, Watched)
                named = replace(result, selector=selector_spec(self.request.selector.selector))
                yield LiveEvent("finished", {"result": result_json(named), "cost": cost(named)})

    def _standing(self, p: Progress) -> dict[str, Any]:
        """Counts, and which samples are duplicates: those whose tokens were the same, and still are."""
        self._prefix = self._prefix or [0] * p.n
        first: dict[tuple[int, int | None], int] = {}
        for i, tokens in p.tokens.items():
            token = tokens[p.position - 1] if len(tokens) >= p.position else None
            self._prefix[i] = first.setdefault((self._prefix[i], token), i)
        ended = [len(tokens) < p.position for tokens in p.tokens.values()]
        counts = {"position": p.position, "n": p.n, "distinct": p.distinct, "computed": p.computed}
        return {**counts, "unfinished": p.unfinished, "prefix": list(self._prefix), "ended": ended}

    def _picture_if_due(self, p: Progress, snapshot: Callable[[], Group]) -> dict[str, Any]:
        begin = self.clock()
        wanted = p.position >= self._at_token + TOKENS or begin >= self._at_time + SECONDS
        if self._places is not None and (not wanted or begin < self._rest_until):
            return {}
        picture = self._picture(snapshot())
        self._at_token, self._at_time = p.position, self.clock()
        self._rest_until = begin + (self._at_time - begin) / _SHARE
        return picture

    def _picture(self, group: Group) -> dict[str, Any]:
        sets = [c.activations for c in group.completions]
        known = [s for s in sets if s is not None]
        similarity = consensus_matrix(known)
        place = classical_mds(1 - similarity)
        self._places = place if self._places is None else closest(place, self._places)
        n = len(known)
        return {
            "neurons": [len(s) for s in known],
            "points": np.round(self._places, 4).tolist(),
            "agreement": np.round((similarity.sum(axis=1) - 1) / max(1, n - 1), 4).tolist(),
        }


def _choice(group: Group, choice: Choice) -> dict[str, Any]:
    candidates = [
        {"index": c.index, "text": c.text, "tokens": len(c.tokens), "finish_reason": c.finish_reason}
        for c in group.completions
    ]
    scores = [float(s) if np.isfinite(s) else None for s in choice.scores]
    chosen = {"index": choice.index, "scores": scores, "note": choice.note}
    return {**chosen, "position": group.position, "candidates": candidates}


def cost(result: Result) -> dict[str, Any]:
    """Tokens computed in all, against n full answers of the winner's length."""
    computed = result.group.computed_tokens + result.continued_tokens
    full = len(result.group.completions) * len(result.completion.tokens)
    return {"computed_tokens": computed, "full_tokens": full, "share": computed / full}


def accepted(id: str, model: str, request: Request) -> LiveEvent:
    """What will be done: the request with everything it did not say."""
    selector, params = request.selector, request.params
    assert isinstance(selector, Watched)
    return LiveEvent(
        "accepted",
        {
            "id": id,
            "model": model,
            "n": request.n,
            "stop_at": stop_label(request.stop),
            "selector": selector_spec(selector.selector),
            "seed": params.seed,
            "max_tokens": params.max_tokens,
            "temperature": params.temperature,
            "top_p": params.top_p,
        },
    )
