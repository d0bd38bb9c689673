"""Neuron-Agreement Decoding (section 4): sample prefixes, let their neurons choose, write the winner to its end."""

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nad.engines.base import Engine
from nad.errors import UsageError
from nad.neurons.activation import ActivationRule
from nad.selection.selectors import KNN, SELECTORS, Choice, Consensus, Selector
from nad.spec_grammar import spec_of, with_entry_points
from nad.stopping import At, Progress, StopRule, Watched, check_reachable, stop_label
from nad.text_stream import TextStream
from nad.types import Completion, Group, Message, Result, SamplingParams

_FEW_DISTINCT = 0.25
"""Below this share of distinct prefixes the result says that the choice carried little information."""


@dataclass(frozen=True)
class Selection:
    """The moment of the choice: all prefixes, and the one that was chosen."""

    group: Group
    choice: Choice


@dataclass(frozen=True)
class Request:
    """What to decode and how: n samples stop where `stop` says, `rule` says which neurons count, `selector` chooses.

    `prompt` is one text or messages; `raw` sends a text without the chat template, `template_args` go to it.
    Raises UsageError for a call that cannot be served.
    """

    prompt: str | Sequence[Message]
    n: int = 64
    stop: StopRule = At()
    selector: Selector = KNN()
    params: SamplingParams = SamplingParams()
    rule: ActivationRule = ActivationRule()
    raw: bool = False
    template_args: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        texts = [self.prompt] if isinstance(self.prompt, str) else [m.content for m in self.prompt if m.role == "user"]
        if not any(text.strip() for text in texts):
            raise UsageError("the prompt is empty")
        if self.n < 1:
            raise UsageError(f"n must be at least 1, got {self.n}")
        check_reachable(self.stop, self.params.max_tokens)


def generate(engine: Engine, prompt: str | Sequence[Message], n: int = 64, **options: Any) -> Result:
    """The best of n answers. `options` are the other fields of Request."""
    *_, result = stream(engine, Request(prompt, n, **options))
    assert isinstance(result, Result)
    return result


def stream(
    engine: Engine, request: Request, watch: Callable[[Progress], None] = lambda progress: None
) -> Iterator[Selection | str | Result]:
    """Sample n prefixes and yield the Selection, then the winner's text piece by piece, at last the Result.

    The other n - 1 samples are dropped at the selection; the winner goes on from its own cache to its end, or to
    `params.max_tokens`. Joined, the pieces are the result's text. `watch` is told of every token sampled.
    """
    tokens = engine.encode(request.prompt, request.raw, request.template_args)
    group = engine.sample(tokens, request.n, request.params, Watched(request.stop, watch), request.rule)
    begin = time.perf_counter()
    choice = request.selector.choose(Consensus.of(group))
    select_s = time.perf_counter() - begin
    bare = replace(group, completions=tuple(replace(c, cache=None) for c in group.completions))
    yield Selection(bare, choice)
    begin = time.perf_counter()
    winner = group.completions[choice.index]
    finished = yield from _finish(engine, tokens, winner, request.params)
    yield Result(
        text=finished.text,
        selected=choice.index,
        selector=spec_of(request.selector, with_entry_points(SELECTORS, "nad.selectors")),
        stop_at=stop_label(request.stop),
        scores=tuple(float(score) for score in choice.scores),
        group=bare,
        completion=finished,
        model=engine.name,
        params=request.params,
        select_s=select_s,
        continue_s=time.perf_counter() - begin,
        notes=(*engine.notes, *_notes(request, bare, choice, finished)),
    )


def _finish(
    engine: Engine, prompt_tokens: Sequence[int], winner: Completion, params: SamplingParams
) -> Generator[str, None, Completion]:
    """Yield the winner's text as it is written; return it finished."""
    tokens = list(winner.tokens)
    text = TextStream(engine.decode)
    rest = engine.extend(prompt_tokens, winner, params)
    yield text.add(winner.tokens)
    for token in rest:
        tokens.append(token)
        yield text.add([token])
    yield text.end()
    reason = winner.finish_reason or ("stop" if tokens[-1] in engine.eos else "length")
    return replace(winner, tokens=tuple(tokens), text=engine.decode(tokens), finish_reason=reason, cache=None)


def _notes(request: Request, group: Group, choice: Choice, finished: Completion) -> Iterator[str]:
    n = len(group.completions)
    if n > 1 and request.params.temperature == 0:
        yield "temperature 0: all samples are the same"
    elif n > 1 and (group.distinct == 1 or group.distinct < _FEW_DISTINCT * n):
        unfinished = any(c.finish_reason is None for c in group.completions)
        later = "; a later stop (--stop-at budget) tells more" if unfinished and isinstance(request.stop, At) else ""
        yield f"only {group.distinct} of {n} prefixes are distinct: the choice carried little information{later}"
    if n > 1 and choice.note:
        yield choice.note
    written = len(finished.tokens)
    if finished.finish_reason == "length" and written < request.params.max_tokens:
        yield f"the context window is full after {written} tokens of the answer: it is cut there"
