"""The reference engine: any transformers model with gated feed-forward layers, sampled with a shared prompt."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from nad.engines.capture.gates import GateTap, find_gated_ffns
from nad.engines.capture.recorder import ActivationRecorder, Step
from nad.engines.transformers.cpu.decoding_step import LeanStep
from nad.engines.transformers.cpu.grouped_cache import RowCache
from nad.engines.transformers.cpu.packed_linear import pack_linears
from nad.engines.transformers.loading import load
from nad.engines.transformers.sampling_loop import Rollout, signals_of
from nad.engines.transformers.shared_prompt import NotShareable, SharedPromptCache, shared_prompt_attention_in
from nad.engines.transformers.token_draws import draw_tokens, token_signals, uniforms
from nad.engines.transformers.tokenizer import apply_template, end_tokens, unicode
from nad.errors import UsageError
from nad.neurons.activation import ActivationRule
from nad.stopping import StopRule
from nad.types import Completion, Group, Message, SamplingParams

_PREFILL_TOKENS = 1024
"""Tokens of a prompt or a text that go through the model at once."""
_CHECKED_TOKENS = 16
"""The length of the text on which a decoding step is compared with a plain forward pass."""


class TransformersEngine:
    """Samples from a transformers model, and reads its gates (Eq. 1) while it does.

    With `share_prefixes` samples with the same tokens are computed once; without, each on its own (for tests).
    """

    kind = "transformers"

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        name: str,
        share_prefixes: bool = True,
    ) -> None:
        self._model = cast(Any, model)
        self._tokenizer, self.name = tokenizer, name
        config = self._model.config.get_text_config()
        self._share_prefixes = share_prefixes
        self.layers = self._layers = config.num_hidden_layers
        self.dtype = str(self._model.dtype).removeprefix("torch.")
        self.revision: str | None = getattr(config, "_commit_hash", None)
        self._ffns = find_gated_ffns(model, self._layers)
        self._lean = LeanStep(model) if LeanStep.fits(model) else None
        pack_linears([*model.modules(), *(self._lean.linears if self._lean else [])])
        self._unembed = self._model.get_output_embeddings().weight.detach()
        self._tap = GateTap(self._ffns)
        self._stock_because = "" if self._model._supports_attention_backend else "its attention cannot be replaced"
        self.context_window = int(getattr(config, "max_position_embeddings", None) or 2**31)
        self.neurons = self._layers * self._ffns[0].neurons
        self.eos = end_tokens(model, tokenizer)
        self._check_decoding_step()

    @property
    def notes(self) -> tuple[str, ...]:
        if not self._stock_because:
            return ()
        return (f"stock attention in use, right but slower: the prompt is copied for each row ({self._stock_because})",)

    def encode(
        self, prompt: str | Sequence[Message], raw: bool = False, template_args: Mapping[str, object] | None = None
    ) -> tuple[int, ...]:
        if raw:
            if not isinstance(prompt, str):
                raise UsageError("a raw prompt must be one text, not messages")
            if template_args:
                raise UsageError("template arguments need the chat template; drop --raw or --template-arg")
            return tuple(self._tokenizer(unicode(prompt))["input_ids"])
        messages = [Message("user", prompt)] if isinstance(prompt, str) else prompt
        return tuple(apply_template(self._tokenizer, messages, dict(template_args or {})))

    def encode_completion(self, text: str) -> tuple[int, ...]:
        """The tokens of a completion's text, without the tokens a tokenizer puts before a new text."""
        return tuple(self._tokenizer(unicode(text), add_special_tokens=False)["input_ids"])

    def decode(self, tokens: Sequence[int]) -> str:
        return self._tokenizer.decode(list(tokens), skip_special_tokens=True)

    @torch.inference_mode()
    def sample(
        self,
        prompt_tokens: Sequence[int],
        n: int,
        params: SamplingParams,
        stop: StopRule,
        rule: ActivationRule | None,
        signals: bool = False,
    ) -> Group:
        params = self._within_window(prompt_tokens, params)
        recorder = ActivationRecorder(self._ffns, self._unembed, rule, n, signals) if rule else None
        begin = time.perf_counter()
        run = Rollout(self, tuple(prompt_tokens), n, params, recorder, signals, self._share_prefixes)
        while run.step(stop):
            pass
        completions = run.completions()
        seconds = time.perf_counter() - begin
        capture = recorder.seconds if recorder else 0.0
        return Group(tuple(prompt_tokens), completions, run.computed, seconds - capture, capture)

    @torch.inference_mode()
    def extend(self, prompt_tokens: Sequence[int], completion: Completion, params: SamplingParams) -> Iterator[int]:
        params = self._within_window(prompt_tokens, params)
        if completion.finish_reason is not None:
            return
        tokens = list(completion.tokens)
        if completion.cache is not None:
            shared, row = completion.cache
            cache = shared.fork(row)
        else:
            cache, _ = self.prefill([*prompt_tokens, *tokens[:-1]])
        uniform = uniforms(params.seed, np.array([completion.index]), len(tokens), params.max_tokens)
        only_row = torch.zeros(1, dtype=torch.long, device=self.device)
        for drawn in torch.from_numpy(uniform).to(self.device).T:
            # One row has nothing to share: the stock attention reads prompt and suffix as one.
            logits = self._forward(cache, torch.tensor([tokens[-1:]], device=self.device), keep=1)[:, -1]
            token = int(draw_tokens(logits, only_row, drawn, params.temperature, params.top_p))
            tokens.append(token)
            yield token
            if token in self.eos:
                return

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
        self._check([*prompt_tokens, *completion_tokens], "the prompt and the completion have", self.context_window + 1)
        recorder = ActivationRecorder(self._ffns, self._unembed, rule, 1, signals)
        columns = []
        for start, logits, gates in self._teacher_forced(prompt_tokens, completion_tokens, signals):
            tokens = torch.tensor(completion_tokens[start : start + len(gates[0])], device=self.device)
            for i, token in enumerate(tokens.split(1)):
                zero = torch.zeros_like(token)
                recorder.add(Step([g[i : i + 1] for g in gates], zero, token, zero, zero, start + i))
            if signals:
                columns.append(token_signals(logits, torch.arange(len(tokens), device=self.device), tokens))
        sets, chunks = recorder.finish()
        found = signals_of(torch.cat(columns, dim=1).float().cpu().numpy(), chunks[0]) if signals else None
        reason = "stop" if completion_tokens[-1] in self.eos else "length"
        return Completion(0, tuple(completion_tokens), self.decode(completion_tokens), reason, sets[0], found)

    @property
    def device(self) -> torch.device:
        return self._unembed.device

    def prefill(self, tokens: Sequence[int], record: bool = False) -> tuple[SharedPromptCache, Float[Tensor, "1 v"]]:
        """A cache that holds these tokens, and the logits behind the last; `record` keeps the last token's gates."""
        cache = SharedPromptCache(self._layers, expand=bool(self._stock_because))
        ids = torch.tensor([list(tokens)], device=self.device)
        pieces = ids.split(_PREFILL_TOKENS, dim=1)
        for i, piece in enumerate(pieces):
            last = record and i == len(pieces) - 1
            with self._tap.listening(slice(-1, None)) if last else nullcontext():
                logits = self._forward(cache, piece, keep=1)
        return cache, logits[:, -1]

    def open_rows(self, cache: SharedPromptCache) -> SharedPromptCache | RowCache:
        """The prompt is complete: what comes now are tokens of its rows, of which there is one at first."""
        if self._lean and not self._stock_because and not self._lean.has_listeners():
            return RowCache(cache)
        cache.open_rows()
        return cache

    def decode_step(
        self, cache: SharedPromptCache | RowCache, tokens: Int[np.ndarray, " rows"], record: bool = False
    ) -> Float[Tensor, "rows v"]:
        """The logits of every row behind one more token. Raises NotShareable when its attention cannot be shared."""
        ids = torch.from_numpy(tokens).to(self.device)
        if isinstance(cache, RowCache):
            assert self._lean is not None
            return self._lean(cache, ids, self._tap if record else None)
        with self._tap.listening(slice(None)) if record else nullcontext():
            if self._stock_because:
                return self._forward(cache, ids[:, None], keep=1)[:, -1]
            cache.attended = 0
            with shared_prompt_attention_in(self._model):
                logits = self._forward(cache, ids[:, None], keep=1, nad_cache=cache)
        if cache.attended != self._layers:
            raise NotShareable(f"{cache.attended} of {self._layers} layers used the replaced attention")
        return logits[:, -1]

    def gates(self, rows: int) -> list[Tensor]:
        """What the last recorded forward pass captured, layer by layer, as a GateTap keeps it."""
        return self._tap.take(rows)

    @torch.inference_mode()
    def _check_decoding_step(self) -> None:
        """Use the lean step, else the shared prompt, else (for good) the stock attention: the first that agrees."""
        if self._stock_because:
            return
        try:
            # With somebody listening the check would run through the modules, and say nothing of the lean step.
            if self._lean and (self._lean.has_listeners() or not self._agrees_with_stock()):
                self._lean = None
            if not self._lean and not self._agrees_with_stock():
                self._stock_because = "the shared-prompt attention gave other logits"
        except NotShareable as reason:
            self._stock_because = str(reason)

    def _agrees_with_stock(self) -> bool:
        """Whether a decoding step gives the logits of a plain forward pass, up to what rounding does to these.

        How much that is in this model, and this precision, is seen from a plain pass in two pieces.
        """
        tokens = [(7 * i + 5) % self._model.config.get_text_config().vocab_size for i in range(_CHECKED_TOKENS)]
        _, expected = self.prefill(tokens)
        last = torch.tensor([tokens[-1:]], device=self.device)
        in_pieces = self._forward(self.prefill(tokens[:-1])[0], last, keep=1)[:, -1]
        got = self.decode_step(self.open_rows(self.prefill(tokens[:-1])[0]), np.array(tokens[-1:]))
        rounding, error = (_rms(logits.double() - expected) for logits in (in_pieces, got))
        # Some stock attentions take the softmax in float32 even where the model computes in float64.
        precision = 4 * torch.finfo(got.dtype).eps + 50 * torch.finfo(torch.float32).eps
        return error <= 3 * rounding + precision * float(expected.double().std())

    def _forward(self, cache: SharedPromptCache, ids: Tensor, keep: int, **extra: Any) -> Tensor:
        position = cache.get_seq_length() + torch.arange(ids.shape[1], device=ids.device)[None]
        out = self._model(
            input_ids=ids,
            position_ids=position,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=keep,
            **extra,
        )
        return out.logits

    def _teacher_forced(
        self, prompt: Sequence[int], completion: Sequence[int], all_logits: bool
    ) -> Iterator[tuple[int, Float[Tensor, "tokens v"], list[Float[Tensor, "tokens neurons"]]]]:
        """Logits and gates at the positions that emit the completion's tokens, piece by piece from token `start`."""
        cache = SharedPromptCache(self._layers)
        if len(prompt) > 1:
            cache, _ = self.prefill(prompt[:-1])
        inputs = torch.tensor([[prompt[-1], *completion[:-1]]], device=self.device)
        start = 0
        for piece in inputs.split(_PREFILL_TOKENS // 4, dim=1):
            with self._tap.listening(slice(None)):
                logits = self._forward(cache, piece, keep=0 if all_logits else 1)[0]
            yield start, logits, self.gates(piece.shape[1])
            start += piece.shape[1]

    def _within_window(self, prompt_tokens: Sequence[int], params: SamplingParams) -> SamplingParams:
        """The parameters with max_tokens cut to what fits behind the prompt."""
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


def load_transformers(
    model: str | None, device: str = "auto", dtype: str = "auto", report: Callable[[str], None] = lambda text: None
) -> TransformersEngine:
    """The engine for a hub id, a local folder, a GGUF file or (None) the small default model."""
    name, loaded, tokenizer = load(model, device, dtype, report)
    return TransformersEngine(loaded, tokenizer, name)
