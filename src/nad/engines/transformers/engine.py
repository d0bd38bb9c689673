"""The transformers engine: any model with gated feed-forward layers, sampled with a shared prompt."""

import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import psutil
import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from nad.engines.base import LoadOptions
from nad.engines.capture.layers import find_feed_forwards
from nad.engines.capture.recorder import ActivationRecorder, Step
from nad.engines.texts import ReadsTexts
from nad.engines.transformers.cpu.decoding_step import CpuDecoder
from nad.engines.transformers.decoder import PREFILL_TOKENS, Decoder, Forward, SharedPromptDecoder
from nad.engines.transformers.loading import LoadedModel, attend_with_soft_caps, load, run_experts_in_float64
from nad.engines.transformers.sampling_loop import Source, TransformersRollout, signals_of
from nad.engines.transformers.shared_prompt import NotShareable, SharedPromptCache
from nad.engines.transformers.token_draws import token_signals
from nad.engines.transformers.tokenizer import ChatTokenizer, Detokenizer, end_tokens
from nad.engines.transformers.turns import Turns
from nad.errors import UsageError
from nad.neurons.activation import ActivationRule
from nad.thinking import Tags
from nad.types import Completion, SamplingParams

_CHECKED_TOKENS = 16
"""The length of the text on which a decoding step is compared with a plain forward pass."""


class TransformersEngine(ReadsTexts):
    """Samples from a transformers model, and reads its gates (Eq. 1) while it does.

    With `share_prefixes` samples with the same tokens are computed once; without it each is computed alone (for tests).
    `fast_cpu` allows the decoder of `cpu/` where it fits. One rollout is open at a time.
    """

    kind = "transformers"
    rollouts = 1

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Detokenizer,
        name: str,
        share_prefixes: bool = True,
        fast_cpu: bool = True,
        *,
        notes: Sequence[str] = (),
        weights_digest: str | None = None,
        fold_system: bool = False,
        thinking_tags: Sequence[Tags] = (),
    ) -> None:
        attend_with_soft_caps(model)
        run_experts_in_float64(model)
        self._model = cast(Any, model)
        self.texts, self.name = ChatTokenizer(tokenizer, fold_system, thinking_tags), name
        self.weights_digest = weights_digest
        config = self._model.config.get_text_config()
        self._share_prefixes = share_prefixes
        self.layers = config.num_hidden_layers
        self.dtype = str(self._model.dtype).removeprefix("torch.")
        self.revision: str | None = getattr(config, "_commit_hash", None)
        self._ffns = find_feed_forwards(model, self.layers)
        self._unembed = self._model.get_output_embeddings().weight.detach()
        self.context_window = int(getattr(config, "max_position_embeddings", None) or 2**31)
        self.neurons, self.experts = self._ffns.neurons, self._ffns.experts
        self.eos = end_tokens(model, tokenizer)
        self._turns = Turns()
        self._modules = SharedPromptDecoder(self._model, self._ffns)
        self._decoder, decoder_notes = self._choose_decoder(fast_cpu)
        self.notes = (*notes, *decoder_notes)

    @torch.inference_mode()
    def start(
        self,
        prompt_tokens: Sequence[int],
        n: int,
        params: SamplingParams,
        rule: ActivationRule | None,
        signals: bool = False,
    ) -> TransformersRollout:
        if n < 1:
            raise UsageError(f"n must be at least 1, got {n}")
        params = self._within_window(prompt_tokens, params)
        self._check_memory(n, params, rule, signals)
        source = Source(
            tuple(prompt_tokens), n, params, self.eos, self.decode, self._unembed.device, self._share_prefixes
        )
        release = self._turns.take()
        try:
            recorder = ActivationRecorder(self._ffns, self._unembed, rule, n, signals) if rule else None
            rollout = TransformersRollout(self._decoder, source, recorder, signals, release)
            weakref.finalize(rollout, release)  # a rollout that nobody closed must not block the engine
            return rollout
        except BaseException:
            release()
            raise

    @torch.inference_mode()
    def score(
        self,
        prompt_tokens: Sequence[int],
        completion_tokens: Sequence[int],
        rule: ActivationRule,
        signals: bool = False,
    ) -> Completion:
        if not prompt_tokens or not completion_tokens:
            raise UsageError("a prompt and a completion of at least one token each are needed")
        most = self.context_window + 1 - rule.lag  # the last token is read at its own position alone
        self._check([*prompt_tokens, *completion_tokens], "the prompt and the completion have", most)
        release = self._turns.take()
        try:
            return self._score(prompt_tokens, completion_tokens, rule, signals)
        finally:
            release()

    def close(self) -> None:
        """Nothing is held beyond the model itself."""

    def _score(
        self, prompt: Sequence[int], completion: Sequence[int], rule: ActivationRule, signals: bool
    ) -> Completion:
        recorder = ActivationRecorder(self._ffns, self._unembed, rule, 1, signals)
        columns = []
        tokens = torch.tensor(completion, device=self._unembed.device)
        zero = torch.zeros_like(tokens[:1])
        read = completion[: len(completion) - 1 + rule.lag]
        for start, forward in self._teacher_forced(prompt, read, signals):
            assert forward.gates is not None
            rows, first = len(forward.gates[0]), start - rule.lag
            for i in range(max(0, -first), rows):  # at own positions the prompt's last is no token's
                token = tokens[first + i : first + i + 1]
                recorder.add(Step([g[i : i + 1] for g in forward.gates], zero, token, zero, zero, first + i))
            if signals:
                emitted = tokens[start : start + rows]
                row = torch.arange(len(emitted), device=tokens.device)
                columns.append(token_signals(forward.logits[: len(emitted)], row, emitted))
        sets, chunks = recorder.finish()
        found = signals_of(torch.cat(columns, dim=1).float().cpu().numpy(), chunks[0]) if signals else None
        reason = "stop" if completion[-1] in self.eos else "length"
        return Completion(0, tuple(completion), self.decode(completion), reason, sets[0], found)

    def _teacher_forced(
        self, prompt: Sequence[int], read: Sequence[int], all_logits: bool
    ) -> Iterator[tuple[int, Forward]]:
        """The forward passes of the prompt's last token and those `read` after it, in pieces that begin at `start`.

        The pass that begins at `start` emits the completion's token `start`, and so on.
        """
        cache = SharedPromptCache(self.layers)
        if len(prompt) > 1:
            cache, _ = self._modules.prefill(prompt[:-1])
        inputs = torch.tensor([prompt[-1], *read], device=self._unembed.device)
        start = 0
        for piece in inputs.split(PREFILL_TOKENS // 4):
            yield start, self._modules.read(cache, piece, all_logits)
            start += len(piece)

    @torch.inference_mode()
    def _choose_decoder(self, fast_cpu: bool) -> tuple[Decoder, tuple[str, ...]]:
        """The first that gives the model's own logits: the CPU's, the shared prompt, the model's own attention."""
        try:
            self._modules.prefill([0])
        except (ValueError, TypeError, AttributeError, KeyError, NotImplementedError) as error:
            (said, *_) = str(error).splitlines() or [type(error).__name__]
            name = type(self._model).__name__
            raise UsageError(f"{name} does not run with a cache of keys and values: {said}") from error
        if self._model._supports_attention_backend:
            if fast_cpu and CpuDecoder.fits(self._model):
                fast = CpuDecoder(self._model, self._modules)
                if self._agrees(fast):
                    return fast, ("packed weights and the CPU decoding step in use (--no-fast-cpu turns them off)",)
            try:
                reason = "" if self._agrees(self._modules) else "the shared-prompt attention gave other logits"
            except NotShareable as error:
                reason = str(error)
        else:
            reason = "its attention cannot be replaced"
        if not reason:
            return self._modules, ()
        note = f"stock attention in use, right but slower: the prompt is copied for each row ({reason})"
        return SharedPromptDecoder(self._model, self._ffns, expand=True), (note,)

    def _agrees(self, decoder: Decoder) -> bool:
        """Whether a decoding step gives the logits of a plain forward pass, up to rounding.

        How much rounding does, in this model and precision, is seen from a plain pass in two pieces.
        """
        tokens = [(7 * i + 5) % self._model.config.get_text_config().vocab_size for i in range(_CHECKED_TOKENS)]
        last = torch.tensor(tokens[-1:], device=self._unembed.device)
        _, whole = self._modules.prefill(tokens)
        in_pieces = self._modules.step(self._modules.prefill(tokens[:-1])[0], last)
        state, _ = decoder.prefill(tokens[:-1])
        got = decoder.step(state.rearrange([0, 0]), last.repeat(2))
        expected = whole.logits.double()
        rounding, error = (_rms(forward.logits.double() - expected) for forward in (in_pieces, got))
        # Some stock attentions take the softmax in float32 even where the model computes in float64.
        precision = 4 * torch.finfo(got.logits.dtype).eps + 50 * torch.finfo(torch.float32).eps
        return error <= 3 * rounding + precision * float(expected.std())

    def _check_memory(self, n: int, params: SamplingParams, rule: ActivationRule | None, signals: bool) -> None:
        """Raise UsageError where what n samples are sure to take does not fit: draws, first tokens and peaks."""
        needed = n * params.max_tokens * 8 + (n * self.neurons * (9 if signals else 8) if rule else 0)
        device = self._unembed.device
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
        if needed > free:
            raise UsageError(
                f"{n:,} samples need at least {needed / 1e9:.1f} GB for their draws and neurons, "
                f"but {free / 1e9:.1f} GB of memory are free; take fewer samples (-n)"
            )

    def _within_window(self, prompt_tokens: Sequence[int], params: SamplingParams) -> SamplingParams:
        """The parameters with max_tokens cut to what fits after the prompt."""
        if not prompt_tokens:
            raise UsageError("the prompt is empty")
        self._check(prompt_tokens, "the prompt has", self.context_window - 1)
        return replace(params, max_tokens=min(params.max_tokens, self.context_window - len(prompt_tokens)))

    def _check(self, tokens: Sequence[int], what: str, most: int) -> None:
        """Raise UsageError for too many tokens, or for one the model does not have."""
        if len(tokens) > most:
            raise UsageError(
                f"{what} {len(tokens)} tokens, but {self.name} has a context window of {self.context_window}; "
                "shorten the text"
            )
        unknown = [token for token in tokens if not 0 <= token < len(self._unembed)]
        if unknown:
            raise UsageError(f"no token {unknown[0]}: {self.name} has the tokens 0 to {len(self._unembed) - 1}")


def _rms(x: Float[Tensor, "rows v"]) -> float:
    return float(x.square().mean().sqrt())


def load_transformers(model: Any, options: LoadOptions) -> TransformersEngine:
    """The engine for a hub id, a local folder, a GGUF file, (None) the small default model, or a loaded model."""
    if options.arguments:
        raise UsageError("the transformers engine has no --engine-arg; use --device and --dtype")
    if isinstance(model, nn.Module):
        loaded, fast_cpu = _of_loaded(model, options), options.fast_cpu is True
    else:
        loaded = load(model, options.device, options.dtype, options.report, options.trust_remote_code)
        fast_cpu = options.fast_cpu is not False
    return TransformersEngine(
        loaded.model,
        loaded.tokenizer,
        loaded.name,
        fast_cpu=fast_cpu,
        notes=loaded.notes,
        weights_digest=loaded.weights_digest,
        fold_system=options.fold_system,
        thinking_tags=options.thinking_tags,
    )


def _of_loaded(model: nn.Module, options: LoadOptions) -> LoadedModel:
    if not isinstance(model, PreTrainedModel) or options.tokenizer is None:
        raise UsageError("a loaded model must be one of transformers, given together with its tokenizer")
    if (options.device, options.dtype) != ("auto", "auto"):
        raise UsageError("a loaded model stays on its device and in its precision; drop device and dtype")
    name = Path(getattr(model.config, "_name_or_path", "") or type(model).__name__).name
    return LoadedModel(name, model, options.tokenizer)
