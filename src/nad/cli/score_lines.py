"""`nad score`: the neurons that given texts activate, and the choice among the texts of one prompt."""

import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nad.engines.base import Engine
from nad.errors import NadError, UsageError
from nad.neurons.activation import ActivationRule
from nad.selection import Candidates, Selector
from nad.types import Completion, Message

_FORMS = '{"prompt", "completion"} or {"prompt_tokens", "completion_tokens"}'


@dataclass(frozen=True)
class Line:
    """One text to score, as text or as tokens; `number` counts from 1.

    A line that has both is taken as its tokens: they are exact, a text read again may split in other places.
    """

    number: int
    prompt: str | tuple[int, ...]
    completion: str | tuple[int, ...]


@dataclass(frozen=True)
class ScoreOptions:
    """What `score_lines` computes and prints."""

    rule: ActivationRule = ActivationRule()
    selector: Selector | None = None
    neurons: bool = False
    system: str | None = None
    raw: bool = False
    template_args: Mapping[str, object] = field(default_factory=dict)


def read_lines(file: str) -> list[Line]:
    """The lines of a JSON Lines file, or of standard input ("-"), all checked before any is scored."""
    if file != "-" and not Path(file).is_file():
        raise UsageError(f"no file {file!r}; name a JSON Lines file of {_FORMS}, or - for standard input")
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is not UTF-8 text ({error.reason} at byte {error.start})") from error
    lines = [_parse(i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise UsageError(f"{file} has no lines; each must be {_FORMS}")
    return lines


def _parse(number: int, text: str) -> Line:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(f"line {number} is not JSON ({error.msg} at column {error.colno})") from error
    except (ValueError, RecursionError) as error:  # an integer too long, or brackets too deep
        raise UsageError(f"line {number} cannot be read as JSON ({error})") from error
    if isinstance(values, dict):
        if all(_are_tokens(values.get(key)) for key in ("prompt_tokens", "completion_tokens")):
            return Line(number, tuple(values["prompt_tokens"]), tuple(values["completion_tokens"]))
        if all(isinstance(values.get(key), str) and values[key] for key in ("prompt", "completion")):
            return Line(number, values["prompt"], values["completion"])
    raise UsageError(f"line {number} must be {_FORMS}: texts, or lists of token ids, none of them empty")


def _are_tokens(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(type(t) is int and t >= 0 for t in value)


def score_lines(engine: Engine, lines: Sequence[Line], options: ScoreOptions) -> Iterator[dict[str, object]]:
    """One record a line, in order: `line`, `tokens` and `activated` (counts), and what the options add.

    `neurons` adds the sorted neuron ids (layer * N + i) and each one's first token; a selector adds `score` and
    `selected` within the lines of each prompt, which needs all lines scored before the first is returned.
    """
    if options.selector is None:
        for line in lines:
            yield _record(line, _score(engine, line, options), options)
        return
    completions = [_score(engine, line, options) for line in lines]
    chosen = _choose(lines, completions, options.selector)
    for i, (line, completion) in enumerate(zip(lines, completions, strict=True)):
        yield {**_record(line, completion, options), **chosen[i]}


def _score(engine: Engine, line: Line, options: ScoreOptions) -> Completion:
    prompt, completion = line.prompt, line.completion
    try:
        if isinstance(prompt, str):
            messages: str | list[Message] = prompt
            if options.system is not None:
                messages = [Message("system", options.system), Message("user", prompt)]
            prompt = engine.encode(messages, options.raw, options.template_args)
        if isinstance(completion, str):
            completion = engine.encode_completion(completion)
        return engine.score(prompt, completion, options.rule)
    except NadError as error:
        raise type(error)(f"line {line.number}: {error}") from error


def _record(line: Line, completion: Completion, options: ScoreOptions) -> dict[str, object]:
    found = completion.activations
    assert found is not None  # Engine.score captures them
    record: dict[str, object] = {"line": line.number, "tokens": len(completion.tokens), "activated": len(found)}
    if options.neurons:
        record |= {"neurons": found.neuron.tolist(), "first_token": found.first_token.tolist()}
    return record


def _choose(
    lines: Sequence[Line], completions: Sequence[Completion], selector: Selector
) -> dict[int, dict[str, object]]:
    groups: dict[object, list[int]] = defaultdict(list)
    for i, line in enumerate(lines):
        groups[line.prompt].append(i)
    chosen: dict[int, dict[str, object]] = {}
    for members in groups.values():
        choice = selector.choose(Candidates.of([completions[i] for i in members], full=True))
        for place, i in enumerate(members):
            score = float(choice.scores[place])
            chosen[i] = {"score": score if np.isfinite(score) else None, "selected": place == choice.index}
    return chosen
