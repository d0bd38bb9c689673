"""The method as a generation strategy of transformers: `model.generate(..., custom_generate=nad.custom_generate)`."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel
from transformers.generation.utils import GenerateDecoderOnlyOutput

from nad.engines.base import Rollout
from nad.engines.transformers.engine import TransformersEngine
from nad.errors import UsageError
from nad.neurons.activation import parse_rule
from nad.schedules import check_samples, choice_of, sample
from nad.selection import Candidates, Selector, check_applies, parse_selector
from nad.stopping import At, Never, StopRule, check_reachable, parse_stop
from nad.types import SamplingParams

_REFUSED = (
    "num_beams num_return_sequences top_k repetition_penalty encoder_repetition_penalty no_repeat_ngram_size min_p",
    "top_h typical_p epsilon_cutoff eta_cutoff guidance_scale bad_words_ids suppress_tokens begin_suppress_tokens",
    "forced_bos_token_id forced_eos_token_id min_length min_new_tokens stop_strings max_time sequence_bias",
    "watermarking_config output_scores output_logits output_attentions output_hidden_states",
)
"""Generation settings the method has no place for: they must be off."""
_OFF = (None, False, 0, 1)


def custom_generate(
    model: PreTrainedModel,
    input_ids: Int[Tensor, "batch prompt"],
    generation_config: GenerationConfig,
    n: int = 64,
    stop_at: str | None = None,
    selector: str = "knn",
    activation: str = "top_k",
    seed: int = 0,
    **model_kwargs: Any,
) -> Int[Tensor, "batch tokens"] | GenerateDecoderOnlyOutput:
    """The best of n continuations of each prompt, as `generate` returns them: prompt and answer, padded on the right.

    temperature, top_p, max_new_tokens (or max_length), end tokens and the padding token are the generation config's;
    `do_sample=False` is greedy. n, stop_at, selector, activation and seed are this method's own, spelled as on the
    command line. Positions that the attention mask hides are left out of a prompt. Raises UsageError for settings it
    would have to ignore; `top_k=0` is needed, since transformers turns `top_k` on by itself.
    """
    ignored = [name for line in _REFUSED for name in line.split() if getattr(generation_config, name, None) not in _OFF]
    if ignored:
        raise UsageError(f"custom_generate cannot apply {', '.join(ignored)}; turn it off (top_k=0, num_beams=1, ...)")
    chooser, rule = parse_selector(selector), parse_rule(activation)
    if "answers" in chooser.needs:
        raise UsageError(f"selector {selector} reads answers in texts, which generate does not have; use nad.generate")
    engine = TransformersEngine(model, _NoTokenizer(), type(model).__name__, fast_cpu=False)
    ends = generation_config.eos_token_id
    engine.eos = frozenset(ends if isinstance(ends, list) else [] if ends is None else [ends])
    attention_mask = model_kwargs.get("attention_mask")
    answers = []
    for row, ids in enumerate(input_ids):
        prompt = ids if attention_mask is None else ids[attention_mask[row].bool()]
        params = _sampling(generation_config, len(ids), seed)
        stop = At(min(At().tokens, params.max_tokens)) if stop_at is None else parse_stop(stop_at)
        check_samples(stop, n)
        check_reachable(stop, params.max_tokens)
        check_applies(chooser, full=isinstance(stop, Never))
        captured = rule if "neurons" in chooser.needs else None
        with engine.start(prompt.tolist(), n, params, captured, "signals" in chooser.needs) as rollout:
            answers.append(_best(rollout, stop, chooser))
    sequences = _joined(input_ids, answers, generation_config)
    return GenerateDecoderOnlyOutput(sequences=sequences) if generation_config.return_dict_in_generate else sequences


class _NoTokenizer:
    """generate has tokens only: no text is read or made."""

    eos_token_id = chat_template = None
    added_tokens_decoder: Mapping[int, Any] = {}
    all_special_ids = ()

    def decode(self, token_ids: Any) -> str:
        return ""


def _sampling(config: GenerationConfig, prompt: int, seed: int) -> SamplingParams:
    """`generate` has turned max_new_tokens into max_length by now."""
    return SamplingParams(
        temperature=(1.0 if config.temperature is None else config.temperature) if config.do_sample else 0.0,
        top_p=1.0 if config.top_p is None else config.top_p,
        max_tokens=config.max_length - prompt,
        seed=seed,
    )


def _best(rollout: Rollout, stop: StopRule, selector: Selector) -> tuple[int, ...]:
    """The tokens of the chosen sample, written to its end."""
    full = isinstance(stop, Never)
    chosen = choice_of(sample(rollout, stop, lambda group: selector.choose(Candidates.of(group.completions, full)), id))
    assert chosen.choice.index is not None  # only votes can fail, and they read answers
    rollout.keep([chosen.choice.index], capture=False)
    for _ in rollout.until(Never()):
        pass
    return rollout.group().completions[0].tokens


def _joined(
    input_ids: Int[Tensor, "batch prompt"], answers: Sequence[tuple[int, ...]], config: GenerationConfig
) -> Int[Tensor, "batch tokens"]:
    pad = config.pad_token_id if config.pad_token_id is not None else min(config.eos_token_id or [0])
    longest = max(map(len, answers))
    padded = [[*answer, *[pad] * (longest - len(answer))] for answer in answers]
    return torch.cat([input_ids, torch.tensor(padded, device=input_ids.device)], dim=1)
