"""A recorded run served as an engine: tests, docs and demos without a model."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from nad.neurons.activation import ActivationRule, activation_set
from nad.errors import UsageError
from nad.grading.answers import THINKING
from nad.stopping import stop_position
from nad.prefixes import prefix_curve
from nad.runs.records import GradedSample, ProblemRecord, Run
from nad.stopping import CHUNK, StopRule
from nad.runs.store import open_run
from nad.types import Completion, Group, Message, SamplingParams, Signals

_NOTHING = activation_set(np.zeros(0, int), np.zeros(0, int), np.zeros(0))


class ReplayEngine:
    """Samples what a run recorded: its prompts (as texts or problem ids), its parameters, its first n samples.

    Whatever the run does not hold raises UsageError. Texts of prefixes are exact; peaks are those of full answers.
    """

    kind = "replay"

    def __init__(self, run: Run) -> None:
        manifest = run.manifest
        self._manifest = manifest
        self.name, self.revision, self.dtype = manifest.model, manifest.revision, manifest.dtype
        self.layers, self.neurons = manifest.layers, manifest.neurons
        self.notes = (f"replayed from a recorded run of {manifest.task}",)
        records = list(run)
        self._by_name = {name: r for r in records for name in (r.problem, r.prompt.strip()) if name}
        self._by_tokens = {r.prompt_tokens: r for r in records}
        ended = (s.completion for r in records for s in r.samples if s.completion.finish_reason == "stop")
        self.eos = frozenset(c.tokens[-1] for c in ended)
        self._samples = [s for r in records for s in r.samples]
        # All completions in one array, -1 behind each, to find tokens in.
        texts = [np.array([*s.completion.tokens, -1]) for s in self._samples]
        self._stream = np.concatenate([*texts, np.array([-1])])
        self._starts = np.cumsum([0, *(len(text) for text in texts[:-1])])

    def encode(
        self, prompt: str | Sequence[Message], raw: bool = False, template_args: Mapping[str, object] | None = None
    ) -> tuple[int, ...]:
        asked = [Message("user", prompt)] if isinstance(prompt, str) else list(prompt)
        record = self._by_name.get(asked[-1].content.strip())
        if record is None:
            known = ", ".join(record.problem for record in list(self._by_tokens.values())[:3])
            raise UsageError(
                f"the recorded run has no such prompt; give one of its prompts or problem ids ({known}, ...)"
            )
        system = asked[0].content if len(asked) > 1 else None
        self._check("system", system, self._manifest.system)
        self._check("raw", raw, self._manifest.raw)
        self._check("template_args", dict(template_args or {}), self._manifest.template_args)
        return record.prompt_tokens

    def encode_completion(self, text: str) -> tuple[int, ...]:
        for sample in self._samples:
            if sample.completion.text == text:
                return sample.completion.tokens
        raise UsageError("the recorded run has no such text; a replay has no tokenizer")

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of a recorded completion or of neighbouring tokens of one; of others one token after the other.

        A recorded prompt's text is what the record has of it: the user's, and a thinking block its template opened.
        """
        if not tokens:
            return ""
        if asked := self._by_tokens.get(tuple(tokens)):
            return asked.prompt + (THINKING if asked.thinking else "")
        wanted = np.asarray(tokens)
        for start in np.flatnonzero(self._stream == wanted[0]):
            if np.array_equal(self._stream[start : start + len(wanted)], wanted):
                number = int(np.searchsorted(self._starts, start, side="right")) - 1
                first = int(start - self._starts[number])
                sample = self._samples[number]
                return _text(sample, first + len(wanted))[len(_text(sample, first)) :]
        if len(tokens) > 1:
            return "".join(self.decode([token]) for token in tokens)
        raise UsageError(f"token {tokens[0]} stands in no recorded completion; a replay has no tokenizer")

    def sample(
        self,
        prompt_tokens: Sequence[int],
        n: int,
        params: SamplingParams,
        stop: StopRule,
        rule: ActivationRule | None,
        signals: bool = False,
    ) -> Group:
        record = self._record(prompt_tokens)
        if n > len(record.samples):
            raise UsageError(f"the recorded run has {len(record.samples)} samples a problem, not {n}; lower -n")
        recorded = self._manifest.params
        seeds = (recorded.seed, record.seed)  # a run's own seed, or the one its problem got from it
        for name in ("temperature", "top_p", "max_tokens"):
            self._check(name, getattr(params, name), getattr(recorded, name))
        if params.seed not in seeds:
            self._check("seed", params.seed, recorded.seed)
        if rule is not None:
            self._check("activation", rule, self._manifest.rule)
        samples = record.samples[:n]
        tokens = [s.completion.tokens for s in samples]
        curve = prefix_curve(tokens)
        position = stop_position(stop, tokens, curve)
        cut = tuple(_cut(s, position, rule is not None, signals) for s in samples)
        return Group(record.prompt_tokens, cut, int(curve.computed[position - 1]), sum(s.seconds for s in samples))

    def extend(self, prompt_tokens: Sequence[int], completion: Completion, params: SamplingParams) -> Iterator[int]:
        if completion.finish_reason is not None:
            return iter(())
        recorded = self._record(prompt_tokens).samples[completion.index].completion
        if recorded.finish_reason is None:
            stop = self._manifest.stop_at
            raise UsageError(f"the run was recorded with --stop-at {stop}: it does not hold the answers' ends")
        return iter(recorded.tokens[len(completion.tokens) :])

    def score(
        self,
        prompt_tokens: Sequence[int],
        completion_tokens: Sequence[int],
        rule: ActivationRule,
        signals: bool = False,
    ) -> Completion:
        self._check("activation", rule, self._manifest.rule)
        for sample in self._record(prompt_tokens).samples:
            if sample.completion.tokens == tuple(completion_tokens):
                return replace(_cut(sample, len(completion_tokens), True, signals), index=0)
        raise UsageError("the recorded run has no such completion; a replay cannot read new texts")

    def _record(self, prompt_tokens: Sequence[int]) -> ProblemRecord:
        if tuple(prompt_tokens) not in self._by_tokens:
            raise UsageError("the recorded run has no such prompt")
        return self._by_tokens[tuple(prompt_tokens)]

    def _check(self, name: str, asked: object, recorded: object) -> None:
        if asked != recorded:
            raise UsageError(f"the run was recorded with {name} {recorded!r}, not {asked!r}; ask for what it holds")


def _text(sample: GradedSample, tokens: int) -> str:
    if tokens == 0:
        return ""
    if tokens >= len(sample.completion.tokens):
        return sample.completion.text
    return sample.completion.text[: sample.text_end[tokens - 1]]


def _cut(sample: GradedSample, position: int, capture: bool, signals: bool) -> Completion:
    """The sample as it stood at this position."""
    whole = sample.completion
    unfinished = position < len(whole.tokens)
    return replace(
        whole,
        tokens=whole.tokens[:position],
        text=_text(sample, position),
        finish_reason=None if unfinished else whole.finish_reason,
        activations=whole.activations.prefix(position) if capture else _NOTHING,
        signals=_cut_signals(whole.signals, position, unfinished) if signals and whole.signals else None,
    )


def _cut_signals(whole: Signals, position: int, unfinished: bool) -> Signals:
    """Signals of the first tokens; the neurons of a chunk that was cut are not known, so it is left out."""
    chunks = position // CHUNK if unfinished else len(whole.chunk_neurons)
    return Signals(
        whole.logprob[:position],
        whole.entropy[:position],
        whole.self_certainty[:position],
        whole.confidence[:position],
        whole.chunk_neurons[:chunks],
    )


def load_replay(
    model: str | None, device: str = "auto", dtype: str = "auto", report: Callable[[str], None] = lambda text: None
) -> ReplayEngine:
    """The run at `model`, a path or an address. Raises UsageError where there is none."""
    if model is None:
        raise UsageError("the replay engine needs a recorded run: --model RUN")
    report("reading the run")
    return ReplayEngine(open_run(model, partial=True))
