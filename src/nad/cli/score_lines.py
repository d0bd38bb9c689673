"""`nad score`: the neurons that given texts activate, and the choice among the texts of one prompt."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nad.cli.streams import read_input
from nad.decoding import votes_of
from nad.engines.base import Engine
from nad.errors import NadError, UsageError
from nad.neurons.activation import ActivationRule
from nad.selection import Candidates, Selector, check_applies
from nad.types import Completion, Message

BOM = "\ufeff"
"""What some editors write before a file's first character."""
_FORMS = '{"prompt", "completion"} or {"prompt_tokens", "completion_tokens"}'


@dataclass(frozen=True)
class Line:
    """One text to score, as text or as tokens; a prompt may also be chat messages. `number` counts from 1.

    Where a line has both, the tokens count: they are exact, while a text that is read again may split elsewhere.
    """

    number: int
    prompt: str | tuple[int, ...] | tuple[Message, ...]
    completion: str | tuple[int, ...]


@dataclass(frozen=True)
class ScoreOptions:
    """What `score_lines` computes and prints. Raises UsageError for a selector that cannot choose among given texts."""

    rule: ActivationRule = ActivationRule()
    selector: Selector | None = None
    neurons: bool = False
    system: str | None = None
    raw: bool = False
    template_args: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.selector is not None:
            check_applies(self.selector, full=True)


def read_lines(file: str) -> list[Line]:
    """The lines of a JSON Lines file, or of standard input ("-"), all checked before any is scored."""
    if file != "-" and not Path(file).is_file():
        raise UsageError(f"no file {file!r}; name a JSON Lines file of {_FORMS}, or - for standard input")
    try:
        text = (read_input() if file == "-" else Path(file).read_text(encoding="utf-8")).removeprefix(BOM)
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
        prompt, completion = _prompt(values.get("prompt")), values.get("completion")
        if prompt and isinstance(completion, str) and completion:
            return Line(number, prompt, completion)
    raise UsageError(
        f"line {number} must be {_FORMS}: texts, or lists of token ids, none of them empty; a prompt may also be a "
        'list of chat messages {"role", "content"}'
    )


def _prompt(value: object) -> str | tuple[Message, ...] | None:
    """A text, or chat messages; None for anything else."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        return None
    turns = [turn if isinstance(turn, dict) else {} for turn in value]
    if not all(isinstance(turn.get(key), str) for turn in turns for key in ("role", "content")):
        return None
    return tuple(Message(turn["role"], turn["content"]) for turn in turns)


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
    chosen = _choose(engine, lines, completions, options)
    for i, (line, completion) in enumerate(zip(lines, completions, strict=True)):
        yield {**_record(line, completion, options), **chosen[i]}


def _score(engine: Engine, line: Line, options: ScoreOptions) -> Completion:
    signals = options.selector is not None and "signals" in options.selector.needs
    try:
        completion = line.completion
        if isinstance(completion, str):
            completion = engine.encode_completion(completion)
        return engine.score(_prompt_tokens(engine, line.prompt, options), completion, options.rule, signals)
    except NadError as error:
        raise type(error)(f"line {line.number}: {error}") from error


def _prompt_tokens(
    engine: Engine, prompt: str | tuple[int, ...] | tuple[Message, ...], options: ScoreOptions
) -> Sequence[int]:
    """The prompt through the chat template, with the system message of the options; tokens as they are."""
    if isinstance(prompt, str) and options.system is None:
        return engine.encode(prompt, options.raw, options.template_args)
    turns = [Message("user", prompt)] if isinstance(prompt, str) else [m for m in prompt if isinstance(m, Message)]
    if not turns:
        return [token for token in prompt if isinstance(token, int)]
    if options.system is not None:
        if turns[0].role == "system":
            raise UsageError("the messages have a system message already; drop --system")
        turns.insert(0, Message("system", options.system))
    return engine.encode(turns, options.raw, options.template_args)


def _record(line: Line, completion: Completion, options: ScoreOptions) -> dict[str, object]:
    found = completion.activations
    assert found is not None  # Engine.score captures them
    record: dict[str, object] = {"line": line.number, "tokens": len(completion.tokens), "activated": len(found)}
    if options.neurons:
        record |= {"neurons": found.neuron.tolist(), "first_token": found.first_token.tolist()}
    return record


def _choose(
    engine: Engine, lines: Sequence[Line], completions: Sequence[Completion], options: ScoreOptions
) -> dict[int, dict[str, object]]:
    groups: dict[object, list[int]] = defaultdict(list)
    for i, line in enumerate(lines):
        groups[line.prompt].append(i)
    selector = options.selector
    assert selector is not None
    chosen: dict[int, dict[str, object]] = {}
    for prompt, members in groups.items():
        texts, answers = [completions[i] for i in members], None
        if "answers" in selector.needs:
            answers = votes_of(engine, _prompt_tokens(engine, lines[members[0]].prompt, options), texts)
        choice = selector.choose(Candidates.of(texts, full=True, answers=answers, problem=repr(prompt)))
        for place, i in enumerate(members):
            score = float(choice.scores[place])
            chosen[i] = {"score": score if np.isfinite(score) else None, "selected": place == choice.index}
    return chosen
