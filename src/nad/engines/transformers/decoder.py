"""How tokens go through the model: the Decoder contract, and the decoder that runs any model through its modules."""

import inspect
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nad.engines.capture.layers import FeedForwards, Gates
from nad.engines.transformers.shared_prompt import NotShareable, SharedPromptCache, shared_prompt_attention_in

PREFILL_TOKENS = 1024
"""Tokens of a prompt or a text that go through the model at once."""


class Forward(NamedTuple):
    """What one forward pass gives: the logits after each row, and (if asked for) its gates, layer by layer."""

    logits: Float[Tensor, "rows v"]
    gates: Gates | None


@runtime_checkable
class State(Protocol):
    """The keys and values of the rows of a batch; after the prefill there is one row, the prompt's."""

    def rearrange(self, parents: Sequence[int]) -> "State":
        """The state whose row i continues row parents[i]; rows nobody continues are freed. The old one is spent."""

    def fork(self, row: int) -> "State":
        """The state of this row alone, in memory of its own; this one stays as it is."""


@runtime_checkable
class Decoder(Protocol):
    """Runs the model on a prompt, then on one more token of every row."""

    def prefill(self, tokens: Sequence[int], capture: bool = False) -> tuple[State, Forward]:
        """The state after these tokens, and the forward pass of the last."""

    def step(self, state: Any, tokens: Int[Tensor, " rows"], capture: bool = False) -> Forward:
        """One more token for each row of a state that this decoder made."""


class SharedPromptDecoder:
    """Runs any model through its own modules, the prompt's keys and values kept once for all rows.

    A single row has nothing to share: it is read with the model's own attention, as one text. With `expand` so are
    several rows, each with a copy of the prompt. Raises NotShareable when the attention cannot be shared.
    """

    def __init__(self, model: Any, layers: FeedForwards, expand: bool = False) -> None:
        self._model, self._layers, self._expand = model, layers, expand
        self._takes_cache = _name_of_cache(model)

    def prefill(self, tokens: Sequence[int], capture: bool = False) -> tuple[SharedPromptCache, Forward]:
        cache = SharedPromptCache(len(self._layers), self._expand)
        *pieces, last = torch.tensor([list(tokens)], device=self._model.device).split(PREFILL_TOKENS, dim=1)
        for piece in pieces:
            self._forward(cache, piece, keep=1)
        return cache, self._captured(cache, last, slice(-1, None), capture)

    def read(self, cache: SharedPromptCache, tokens: Int[Tensor, " tokens"], logits: bool) -> Forward:
        """More tokens of a single row at once: the gates of each, and the logits of each, or of the last alone."""
        tap = self._layers.tap()
        with tap.listening(slice(None)):
            found = self._forward(cache, tokens[None], keep=0 if logits else 1)[0]
        return Forward(found, tap.gates(len(tokens)))

    def step(self, state: SharedPromptCache, tokens: Int[Tensor, " rows"], capture: bool = False) -> Forward:
        if not state.rows or self._expand:
            return self._captured(state, tokens[:, None], slice(None), capture)
        state.attended = 0
        with shared_prompt_attention_in(self._model):
            forward = self._captured(state, tokens[:, None], slice(None), capture, nad_cache=state)
        if state.attended != len(self._layers):
            raise NotShareable(f"{state.attended} of {len(self._layers)} layers used the replaced attention")
        return forward

    def _captured(
        self, cache: SharedPromptCache, ids: Int[Tensor, "rows tokens"], positions: slice, capture: bool, **extra: Any
    ) -> Forward:
        tap = self._layers.tap()
        with tap.listening(positions) if capture else nullcontext():
            logits = self._forward(cache, ids, keep=1, **extra)[:, -1]
        return Forward(logits, tap.gates(len(ids)) if capture else None)

    def _forward(
        self, cache: SharedPromptCache, ids: Int[Tensor, "rows tokens"], keep: int, **extra: Any
    ) -> Float[Tensor, "rows kept v"]:
        position = cache.get_seq_length() + torch.arange(ids.shape[1], device=ids.device)[None]
        out = self._model(
            input_ids=ids,
            position_ids=position,
            use_cache=True,
            logits_to_keep=keep,
            **{self._takes_cache: cache},
            **extra,
        )
        return out.logits


def _name_of_cache(model: Any) -> str:
    """What the model's forward pass calls its cache: transformers 5.24 renamed it, and ends the old name with 5.40."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
