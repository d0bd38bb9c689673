"""Answers that another engine or an API wrote: read from a file, and scored into records like sampled ones.

One JSON object a line, n lines for each problem, in any order; a problem's samples keep the order of their lines:

    {"problem": "gsm8k/0", "completion": "She sells 16 - 3 - 4 = 9 eggs ... The answer is 18."}
    {"problem": "gsm8k/0", "completion_tokens": [1446, 23291, ...]}

`finish_reason`, "stop" or "length", may stand beside them. A text without one counts as finished; of tokens the last
one tells.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nad.engines.base import Engine
from nad.errors import NadError, UsageError
from nad.prefixes import prefix_curve
from nad.runs.records import GradedSample, ProblemRecord
from nad.runs.sampling import Settings, asked_for_consistency, prompt_tokens
from nad.runs.text_ends import Spans
from nad.tasks.base import Problem, Task
from nad.thinking import opens_thinking

_FORMS = '{"problem", "completion"} or {"problem", "completion_tokens"}'


@dataclass(frozen=True)
class Answer:
    """One answer, as text or as tokens; `line` counts from 1.

    Where a line has both, the tokens count: they are exact, while a text that is read again may split elsewhere.
    """

    line: int
    problem: str
    completion: str | tuple[int, ...]
    finish_reason: str | None


@dataclass(frozen=True)
class Completions:
    """The answers of a file by problem, n for each. `name` is the file's, `sha256` of its bytes."""

    name: str
    sha256: str
    answers: Mapping[str, Sequence[Answer]]

    @property
    def n(self) -> int:
        return len(next(iter(self.answers.values())))

    @property
    def origin(self) -> dict[str, str]:
        """What the manifest says of where the answers came from."""
        return {"file": self.name, "sha256": self.sha256}


def read_completions(file: str, task: Task, limit: int | None) -> Completions:
    """The answers to the task's problems; with `limit` those to others are left out.

    Raises UsageError that names the line, or the problem, that is not as it must be.
    """
    path = Path(file)
    if not path.is_file():
        raise UsageError(f"no file {file!r}; name a JSON Lines file of {_FORMS}")
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is not UTF-8 text ({error.reason} at byte {error.start})") from error
    ids = [problem.id for problem in task.problems()]
    answers: dict[str, list[Answer]] = {problem: [] for problem in ids}
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            answer = _parsed(number, line)
            if answer.problem in answers:
                answers[answer.problem].append(answer)
            elif limit is None:
                shown = ", ".join(ids[:3]) + (", ..." if len(ids) > 3 else "")
                raise UsageError(f"line {number}: {task.name} has no problem {answer.problem!r}; it has {shown}")
    _check_numbers(file, answers)
    return Completions(path.name, hashlib.sha256(data).hexdigest(), answers)


def _check_numbers(file: str, answers: Mapping[str, Sequence[Answer]]) -> None:
    (first, some), *others = answers.items()
    if not any(answers.values()):
        raise UsageError(f"{file} has no answer to any of the {len(answers)} problems; each line must be {_FORMS}")
    for problem, found in others:
        if len(found) != len(some):
            raise UsageError(
                f"{file} has {len(some)} answers to {first!r} and {len(found)} to {problem!r}; "
                "each problem needs as many (--limit cuts the problems)"
            )


def _parsed(number: int, text: str) -> Answer:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(f"line {number} is not JSON ({error.msg} at column {error.colno})") from error
    except (ValueError, RecursionError) as error:  # an integer too long, or brackets too deep
        raise UsageError(f"line {number} cannot be read as JSON ({error})") from error
    if not isinstance(values, dict) or not isinstance(values.get("problem"), str):
        raise UsageError(f"line {number} must be {_FORMS}")
    reason = values.get("finish_reason")
    if reason not in (None, "stop", "length"):
        raise UsageError(f'line {number}: finish_reason must be "stop" or "length", not {json.dumps(reason)[:40]}')
    tokens, completion = values.get("completion_tokens"), values.get("completion")
    if tokens is not None:
        if not isinstance(tokens, list) or not all(type(t) is int and 0 <= t < 2**31 for t in tokens):
            raise UsageError(f"line {number}: completion_tokens must be a list of token ids")
        completion = tuple(tokens)
    elif not isinstance(completion, str):
        raise UsageError(f"line {number} must be {_FORMS}")
    if not completion:
        raise UsageError(f"line {number}: the answer is empty, which activates no neuron; leave its problem out")
    return Answer(number, values["problem"], completion, reason)


def score_problem(
    engine: Engine,
    task: Task,
    problem: Problem,
    settings: Settings,
    spans: Spans,
    answers: Sequence[Answer],
    watch: Callable[[int], None],
) -> ProblemRecord:
    """A problem's answers with their neurons, each read in one pass, not graded yet. `watch` hears the tokens read."""
    prompt = task.prompt(problem)
    tokens = prompt_tokens(engine, prompt, settings)
    samples: list[GradedSample] = []
    for answer in answers:
        begin = time.perf_counter()
        try:
            sample = _scored(engine, tokens, answer, settings, spans, len(samples))
        except NadError as error:
            raise type(error)(f"line {answer.line}: {error}") from error
        samples.append(replace(sample, seconds=time.perf_counter() - begin))
        watch(sum(len(s.completion.tokens) for s in samples))
    record = ProblemRecord(
        problem=problem.id,
        prompt_tokens=tokens,
        samples=tuple(samples),
        computed_tokens=int(prefix_curve([s.completion.tokens for s in samples]).computed[-1]),
        prompt=prompt,
        thinking=opens_thinking(engine.decode(tokens), engine.thinking_tags),
    )
    return asked_for_consistency(engine, record, settings)


def _scored(
    engine: Engine, prompt: tuple[int, ...], answer: Answer, settings: Settings, spans: Spans, index: int
) -> GradedSample:
    given = answer.completion
    tokens = engine.encode_completion(given) if isinstance(given, str) else given
    found = engine.score(prompt, tokens, settings.rule, signals=True)
    text, reason = found.text, found.finish_reason
    if isinstance(given, str):
        text, reason = given, "stop"
    completion = replace(found, index=index, text=text, finish_reason=answer.finish_reason or reason)
    return GradedSample(replace(completion, text_end=spans.ends(found.tokens, text)), None, None, 0.0)
