"""Neuron-Agreement Decoding (section 4): sample prefixes, let their neurons choose, write the winner to its end."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from nad.engines.base import Engine, Rollout
from nad.errors import NoChoice, UsageError
from nad.grading.answers import extract_answer
from nad.grading.votes import ballots
from nad.neurons.activation import ActivationRule, parse_rule
from nad.schedules import Chosen, check_samples, sample, samples_of
from nad.selection import Candidates, Choice, Selector, check_applies, parse_selector, selector_spec
from nad.stopping import At, Never, Progress, StopRule, check_reachable, parse_stop, stop_label
from nad.text_stream import TextStream
from nad.thinking import as_read, opens_thinking
from nad.types import Completion, Group, Message, Result, SamplingParams

_FEW_DISTINCT = 0.25
"""Below this share of distinct prefixes the result says that the choice carried little information."""


@dataclass(frozen=True)
class Progressed:
    """Every unfinished sample is one token further. `snapshot` gives the group as it stands, until the next event."""

    progress: Progress
    snapshot: Callable[[], Group] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Selected:
    """The moment of the choice: all prefixes, and the one that was chosen. The others are dropped now."""

    group: Group
    choice: Choice


@dataclass(frozen=True)
class Text:
    """The next piece of an answer while it is written; `rank` 0 is the winner. Joined, its pieces are its text."""

    text: str
    rank: int = 0


@dataclass(frozen=True)
class Finished:
    """The end."""

    result: Result


Event = Progressed | Selected | Text | Finished


@dataclass(frozen=True)
class Request:
    """What to decode and how: n samples stop where `stop` says, `rule` says which neurons count, `selector` chooses.

    `prompt` is one text or messages; `raw` sends a text without the chat template, `template_args` go to it. The
    `best` highest ranked answers are written to their ends; `signals` asks for the Signals of every token.
    Raises UsageError for a call that cannot be served.
    """

    prompt: str | Sequence[Message]
    n: int = 64
    stop: StopRule = At()
    selector: Selector = field(default_factory=lambda: parse_selector("knn"))
    params: SamplingParams = SamplingParams()
    rule: ActivationRule = ActivationRule()
    raw: bool = False
    template_args: Mapping[str, object] = field(default_factory=dict)
    best: int = 1
    signals: bool = False

    def __post_init__(self) -> None:
        texts = [self.prompt] if isinstance(self.prompt, str) else [m.content for m in self.prompt if m.role == "user"]
        if not any(text.strip() for text in texts):
            raise UsageError("the prompt is empty")
        if self.n < 1:
            raise UsageError(f"n must be at least 1, got {self.n}")
        if not 1 <= self.best <= self.n:
            raise UsageError(f"best must be between 1 and n ({self.n}), got {self.best}")
        check_samples(self.stop, self.n, self.best)
        check_reachable(self.stop, self.params.max_tokens)
        check_applies(self.selector, full=isinstance(self.stop, Never))


def generate(
    engine: Engine,
    prompt: str | Sequence[Message],
    n: int | None = None,
    *,
    stop: StopRule | str | int | None = None,
    selector: Selector | str = "knn",
    params: SamplingParams | None = None,
    rule: ActivationRule | str = "top_k",
    raw: bool = False,
    template_args: Mapping[str, object] | None = None,
    best: int = 1,
    signals: bool = False,
) -> Result:
    """The best of n answers.

    Rules and selectors may be given as on the command line: `stop="budget"`, `selector="knn:k=5"`,
    `rule="top_k:k=200"`. Without `n` there are 64 samples, or as many as a pruning `stop="16:32,4:128"` begins with.
    Without `stop` samples stop at 32 tokens, or at `params.max_tokens` where that is less. The other arguments are
    Request's. Raises UsageError for a call that cannot be served, NadError when the work fails.
    """
    sampling = params or SamplingParams()
    rule_of_stop = parse_stop(str(stop)) if isinstance(stop, str | int) else stop or default_stop(sampling)
    request = Request(
        prompt=prompt,
        n=samples_of(rule_of_stop) if n is None else n,
        stop=rule_of_stop,
        selector=parse_selector(selector) if isinstance(selector, str) else selector,
        params=sampling,
        rule=parse_rule(rule) if isinstance(rule, str) else rule,
        raw=raw,
        template_args=template_args or {},
        best=best,
        signals=signals,
    )
    *_, last = stream(engine, request)
    assert isinstance(last, Finished)
    return last.result


def default_stop(params: SamplingParams) -> StopRule:
    """The paper's stop position, or the end of answers that are shorter."""
    return At(min(At().tokens, params.max_tokens))


def stream(engine: Engine, request: Request) -> Iterator[Event]:
    """Sample n prefixes, choose, and write the winner to its end: Progressed..., Selected, Text..., Finished.

    The other samples are dropped before Selected is yielded; the winner goes on from its own cache to its end, or to
    `params.max_tokens`. Closing the iterator, or an exception, frees everything. Raises NoChoice for a vote that
    failed.
    """
    tokens = engine.encode(request.prompt, request.raw, request.template_args)
    needs = request.selector.needs
    rule = request.rule if "neurons" in needs else None
    with engine.start(tokens, request.n, request.params, rule, request.signals or "signals" in needs) as rollout:
        choose = partial(_choice, engine, request)
        chosen = yield from sample(rollout, request.stop, choose, lambda p: Progressed(p, rollout.group))
        group, choice = chosen.group, chosen.choice
        kept = _ranked(choice, request.best)
        rollout.keep(kept, capture=False)
        yield Selected(group, choice)
        begin = time.perf_counter()
        yield from _texts(engine, rollout, group, kept, request.params.stop)
        ended = {c.index: c for c in rollout.group().completions}
        finished = [c if (c := group.completions[i]).finish_reason else ended[i] for i in kept]
        continue_s = time.perf_counter() - begin
    yield Finished(_result(engine, request, chosen, finished, continue_s))


def _choice(engine: Engine, request: Request, group: Group) -> Choice:
    """The selector's choice. Answers are read from the texts only where it votes on them."""
    voting = "answers" in request.selector.needs
    answers = votes_of(engine, group.prompt_tokens, group.completions) if voting else None
    full = isinstance(request.stop, Never)
    return request.selector.choose(Candidates.of(group.completions, full, answers, problem=repr(group.prompt_tokens)))


def votes_of(engine: Engine, prompt_tokens: Sequence[int], completions: Sequence[Completion]) -> list[str | None]:
    """What each full answer to a prompt votes for, read from its text; equal answers are one vote."""
    opened = opens_thinking(engine.decode(prompt_tokens), engine.thinking_tags)
    texts = [as_read(c.text, opened, engine.thinking_tags) for c in completions]
    return ballots([extract_answer(text, last_number=True) for text in texts])


def _ranked(choice: Choice, best: int) -> list[int]:
    """The chosen sample and the next best by score, best first."""
    if choice.index is None:
        raise NoChoice(f"no answer was chosen: {choice.note}; take more samples (-n) or another --selector")
    order = [int(i) for i in np.argsort(-choice.scores, kind="stable") if i != choice.index]
    return [choice.index, *order][:best]


def _texts(engine: Engine, rollout: Rollout, group: Group, kept: Sequence[int], stop: Sequence[str]) -> Iterator[Text]:
    """The kept samples' texts as they are written; first, at once, what they have at the choice."""
    streams = [TextStream(engine.decode, stop) for _ in kept]
    shown = [len(group.completions[i].tokens) for i in kept]
    pieces = [text.add(group.completions[i].tokens) for text, i in zip(streams, kept, strict=True)]
    yield from _written(pieces)
    for progress in rollout.until(Never()):
        new = [progress.tokens[i][begin : progress.position] for i, begin in zip(kept, shown, strict=True)]
        yield from _written([text.add(tokens) for text, tokens in zip(streams, new, strict=True)])
        shown = [begin + len(tokens) for begin, tokens in zip(shown, new, strict=True)]
    yield from _written([text.end() for text in streams])


def _written(pieces: Sequence[str]) -> Iterator[Text]:
    """The pieces of the answers by rank; those that complete no text are left out."""
    return (Text(piece, rank) for rank, piece in enumerate(pieces) if piece)


def _result(
    engine: Engine,
    request: Request,
    chosen: Chosen,
    finished: Sequence[Completion],
    continue_s: float,
) -> Result:
    group, choice = chosen.group, chosen.choice
    return Result(
        selected=finished[0].index,
        selector=selector_spec(request.selector),
        stop_at=stop_label(request.stop),
        scores=tuple(float(score) for score in choice.scores),
        group=group,
        completions=tuple(finished),
        model=engine.name,
        params=request.params,
        select_s=chosen.select_s,
        continue_s=continue_s,
        notes=(
            *engine.notes,
            *engine.prompt_notes(request.prompt, request.raw),
            *_notes(request, group, choice, finished[0]),
        ),
    )


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
