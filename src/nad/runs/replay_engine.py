"""A recorded run served as an engine: tests, docs and demos without a model."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import TracebackType

import numpy as np

from nad.engines.base import LoadOptions
from nad.errors import UsageError
from nad.neurons.activation import ActivationRule
from nad.prefixes import PrefixTree
from nad.runs.records import ProblemRecord, Run
from nad.runs.store import open_run
from nad.stopping import Progress, StopRule, progress_of
from nad.thinking import THINKING
from nad.types import Completion, Group, Message, SamplingParams


class ReplayEngine:
    """Samples what a run recorded: its prompts (as texts or problem ids), its parameters, its first n samples.

    Whatever the run does not hold raises UsageError. Texts of prefixes are exact; peaks are those of full answers.
    """

    kind = "replay"
    context_window = None
    rollouts = 8
    """A record is read, not computed: any number of rollouts may be open, but more than this gain nothing."""

    def __init__(self, run: Run) -> None:
        manifest = run.manifest
        self._manifest = manifest
        self.name, self.revision, self.dtype = manifest.model, manifest.revision, manifest.dtype
        self.thinking_tags, self.weights_digest = manifest.thinking_tags, manifest.weights_digest
        self.layers, self.neurons, self.experts = manifest.layers, manifest.neurons, manifest.experts
        self.notes = (f"replayed from a recorded run of {manifest.task}",)
        records = list(run)
        self._by_name = {name: r for r in records for name in (r.problem, r.prompt.strip()) if name}
        self._by_tokens = {r.prompt_tokens: r for r in records}
        ended = (s.completion for r in records for s in r.samples if s.completion.finish_reason == "stop")
        self.eos = frozenset(c.tokens[-1] for c in ended)
        self._samples = [s for r in records for s in r.samples]
        # All completions in one array, -1 after each, to find tokens in.
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

    def prompt_notes(self, prompt: str | Sequence[Message], raw: bool = False) -> tuple[str, ...]:
        return ()

    def encode_completion(self, text: str) -> tuple[int, ...]:
        for sample in self._samples:
            if sample.completion.text == text:
                return sample.completion.tokens
        raise UsageError("the recorded run has no such text; a replay has no tokenizer")

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of a recorded completion, or of neighbouring tokens of one; other tokens are read one by one.

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
                whole = self._samples[number].completion
                return whole.prefix(first + len(wanted)).text[len(whole.prefix(first).text) :]
        if len(tokens) > 1:
            return "".join(self.decode([token]) for token in tokens)
        raise UsageError(f"token {tokens[0]} stands in no recorded completion; a replay has no tokenizer")

    def start(
        self,
        prompt_tokens: Sequence[int],
        n: int,
        params: SamplingParams,
        rule: ActivationRule | None,
        signals: bool = False,
    ) -> "ReplayRollout":
        record = self._record(prompt_tokens)
        if n > len(record.samples):
            raise UsageError(f"the recorded run has {len(record.samples)} samples a problem, not {n}; lower -n")
        recorded = self._manifest.params
        for name in ("temperature", "top_p", "max_tokens", "stop"):
            self._check(name, getattr(params, name), getattr(recorded, name))
        if params.seed != record.seed:  # a run's own seed, or the one its problem got from it
            self._check("seed", params.seed, recorded.seed)
        if rule is not None:
            self._check("activation", rule, self._manifest.rule)
        return ReplayRollout(record, n, rule is not None, signals, self._manifest.stop_at)

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
                return replace(_told(sample.completion, True, signals), index=0)
        raise UsageError("the recorded run has no such completion; a replay cannot read new texts")

    def close(self) -> None:
        """Nothing is held."""

    def _record(self, prompt_tokens: Sequence[int]) -> ProblemRecord:
        if tuple(prompt_tokens) not in self._by_tokens:
            raise UsageError("the recorded run has no such prompt")
        return self._by_tokens[tuple(prompt_tokens)]

    def _check(self, name: str, asked: object, recorded: object) -> None:
        if asked != recorded:
            raise UsageError(f"the run was recorded with {name} {recorded!r}, not {asked!r}; ask for what it holds")


class ReplayRollout:
    """A record's first n samples, token by token as if they were written now."""

    def __init__(self, record: ProblemRecord, n: int, capture: bool, signals: bool, recorded_stop: str) -> None:
        self._record, self._with_signals, self._recorded_stop = record, signals, recorded_stop
        self._samples = {s.completion.index: s for s in record.samples[:n]}
        self._capture = dict.fromkeys(self._samples, capture)
        self._tree = PrefixTree(n)
        for i, sample in self._samples.items():
            self._tree.add(i, sample.completion.tokens, ended=True)
        self._progress: Progress | None = None

    def __enter__(self) -> "ReplayRollout":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is held."""

    def until(self, stop: StopRule) -> Iterator[Progress]:
        if self._progress is not None and stop.reached(self._progress):
            return
        for progress in progress_of(self._tree):
            self._progress = progress
            yield progress
            if stop.reached(progress):
                return
        if any(self._samples[i].completion.finish_reason is None for i in self._tree.tokens):
            raise UsageError(
                f"the run was recorded with --stop-at {self._recorded_stop}: it does not hold the answers' ends"
            )

    def keep(self, samples: Sequence[int], capture: bool = True) -> None:
        self._tree.keep(samples)
        if not capture:
            position = self._tree.position
            for i in samples:
                self._capture[i] &= len(self._samples[i].completion.tokens) <= position

    def group(self) -> Group:
        position = self._tree.position
        kept = [self._samples[i] for i in self._tree.tokens]
        completions = tuple(
            _told(s.completion.prefix(position), self._capture[s.completion.index], self._with_signals) for s in kept
        )
        return Group(self._record.prompt_tokens, completions, self._tree.computed, sum(s.seconds for s in kept))


def _told(completion: Completion, capture: bool, signals: bool) -> Completion:
    """The completion with what was asked for."""
    return replace(
        completion,
        activations=completion.activations if capture else None,
        signals=completion.signals if signals else None,
    )


def load_replay(model: str | None, options: LoadOptions) -> ReplayEngine:
    """The run at `model`, a path or an address. Raises UsageError where there is none."""
    if model is None:
        raise UsageError("the replay engine needs a recorded run: --model RUN")
    options.report("reading the run")
    return ReplayEngine(open_run(model, partial=True))
