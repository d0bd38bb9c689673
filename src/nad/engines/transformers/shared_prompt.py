"""A cache that keeps the prompt's keys and values once for all rows, and the attention that reads it.

All rows of the batch have the same prompt and the same number of tokens after it. So a row's scores are one product
with the prompt's single copy, in which the queries of all rows are folded together, and one with its own suffix;
one softmax runs over both. Nothing is padded, and a sliding window is a slice.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.cache_utils import Cache, CacheLayerMixin

_NAME = "nad_shared_prompt"
_HARMLESS = {"dropout", "is_causal", "position_ids", "cache_position", "use_cache", "return_dict"}
"""Arguments that models pass to attention, and that change nothing for one query token without dropout."""


class NotShareable(Exception):
    """This attention has a term the shared-prompt form does not express; the stock attention must be used."""


class SharedPromptLayer(CacheLayerMixin):
    """One layer's keys and values: the prompt's [1, heads, prompt, dim] and the rows' [rows, heads, suffix, dim]."""

    is_sliding = False

    def __init__(self, expand: bool) -> None:
        super().__init__()
        self.expand = expand
        self.rows = 0
        self.length = 0
        self._suffix_keys: Float[Tensor, "room heads tokens dim"] | None = None
        self._suffix_values: Float[Tensor, "room heads tokens dim"] | None = None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Adopt the prompt's keys and values as they are."""
        self._prompt_keys, self._prompt_values = key_states, value_states
        self._show_prompt(key_states.shape[2])
        self.is_initialized = True

    def _show_prompt(self, length: int) -> None:
        self.keys, self.values = self._prompt_keys[:, :, :length], self._prompt_values[:, :, :length]

    def open_rows(self, rows: int) -> None:
        """The prompt is complete: what comes now are the suffixes of `rows` rows."""
        assert self.keys is not None and self.values is not None
        self.rows = rows
        self.lazy_initialization(self.keys.contiguous(), self.values.contiguous())

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append to the prompt until `open_rows`, then one token to every row's suffix.

        Returns what the attention in use reads: the suffixes alone, or (`expand`) prompt and suffix of every row.
        """
        if not self.rows:
            return self._append_to_prompt(key_states, value_states)
        if key_states.shape[0] != self.rows or key_states.shape[2] != 1:
            raise ValueError(f"expected one token for each of {self.rows} rows, got {tuple(key_states.shape)}")
        self._reserve(self.rows, self.length + 1)
        self.length += 1
        keys, values = self.suffix()
        keys[:, :, -1] = key_states[:, :, 0]
        values[:, :, -1] = value_states[:, :, 0]
        return self.expanded() if self.expand else (keys, values)

    def _append_to_prompt(self, key_states: Tensor, value_states: Tensor) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            return key_states, value_states
        assert self.keys is not None
        held, length = self.keys.shape[2], self.keys.shape[2] + key_states.shape[2]
        for name, new in (("_prompt_keys", key_states), ("_prompt_values", value_states)):
            room = _with_room(getattr(self, name), 2, held, length)
            room[:, :, held:length] = new
            setattr(self, name, room)
        self._show_prompt(length)
        return self.keys, self.values

    def _reserve(self, rows: int, tokens: int) -> None:
        """Room for `rows` x `tokens` in the suffixes."""
        assert self.keys is not None
        if self._suffix_keys is None or self._suffix_values is None:
            _, heads, _, dim = self.keys.shape
            self._suffix_keys = self.keys.new_empty(0, heads, 0, dim)
            self._suffix_values = self.keys.new_empty(0, heads, 0, self._prompt_values.shape[3])
        self._suffix_keys = _with_rows(_with_room(self._suffix_keys, 2, self.length, tokens), rows)
        self._suffix_values = _with_rows(_with_room(self._suffix_values, 2, self.length, tokens), rows)

    def suffix(self) -> tuple[Tensor, Tensor]:
        """Keys and values [rows, heads, suffix, dim] of the rows, as views."""
        assert self._suffix_keys is not None and self._suffix_values is not None
        keys, values = self._suffix_keys[: self.rows], self._suffix_values[: self.rows]
        return keys[:, :, : self.length], values[:, :, : self.length]

    def expanded(self) -> tuple[Tensor, Tensor]:
        assert self.keys is not None and self.values is not None
        pairs = zip((self.keys, self.values), self.suffix(), strict=True)
        keys, values = (torch.cat([p.expand(self.rows, -1, -1, -1), s], dim=2) for p, s in pairs)
        return keys, values

    def rearrange(self, rows: int, changed: Int[Tensor, " changed"], parents: Int[Tensor, " changed"]) -> None:
        """From now on there are `rows` rows; row changed[i] continues row parents[i], every other itself."""
        if self.length and len(changed):
            self._reserve(rows, self.length)
            self.rows = max(self.rows, rows)
            for suffix in self.suffix():
                suffix[changed] = suffix[parents]
        self.rows = rows
        if self._suffix_keys is not None and self._suffix_values is not None:
            self._suffix_keys = _without(self._suffix_keys, rows)
            self._suffix_values = _without(self._suffix_values, rows)

    def get_seq_length(self) -> int:
        return (self.keys.shape[2] if self.keys is not None else 0) + self.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        return -1

    get_max_cache_shape = get_max_length


def _with_room(held: Tensor, axis: int, used: int, tokens: int) -> Tensor:
    """`held` if it has room for `tokens` on `axis`, else a copy of its first `used`, with twice the room or 32 more."""
    if tokens <= held.shape[axis]:
        return held
    shape = list(held.shape)
    shape[axis] = max(tokens, 2 * used, used + 32)
    grown = held.new_empty(shape)
    grown.narrow(axis, 0, used).copy_(held.narrow(axis, 0, used))
    return grown


def _with_rows(held: Tensor, rows: int) -> Tensor:
    """`held` if it has `rows`, else a copy with twice as many or more: rows come a few at a time, in every layer."""
    if rows <= len(held):
        return held
    grown = held.new_empty(max(rows, 2 * len(held)), *held.shape[1:])
    grown[: len(held)] = held
    return grown


def _without(held: Tensor, rows: int) -> Tensor:
    """`held`, or a copy of its first rows where most of it is no longer needed."""
    return held if len(held) <= 2 * rows else held[:rows].clone()


class SharedPromptCache(Cache):
    """The layers' caches of one prompt and its rows."""

    def __init__(self, layers: int, expand: bool = False) -> None:
        super().__init__(layers=[SharedPromptLayer(expand) for _ in range(layers)])
        self.attended = 0

    @property
    def rows(self) -> int:
        """How many rows have suffixes; 0 as long as there is one text only, which grows like the prompt."""
        return self.layers[0].rows

    def rearrange(self, parents: Sequence[int]) -> "SharedPromptCache":
        """Row i continues row parents[i]; rows nobody continues are freed. A first split ends the prompt."""
        if not self.rows:
            if len(parents) == 1:
                return self
            for layer in self.layers:
                layer.open_rows(1)
        changed = [i for i, parent in enumerate(parents) if i != parent]
        pairs = torch.tensor([changed, [parents[i] for i in changed]], dtype=torch.long)
        new, old = pairs.to(self.layers[0].keys.device)
        for layer in self.layers:
            layer.rearrange(len(parents), new, old)
        return self

    def fork(self, row: int) -> "SharedPromptCache":
        """A single row: this prompt and the row's suffix as one text, in memory of its own; this one stays as it is."""
        fork = SharedPromptCache(len(self.layers), self.layers[0].expand)
        for mine, theirs in zip(self.layers, fork.layers, strict=True):
            theirs.lazy_initialization(mine.keys, mine.values)
            if mine.length:
                suffix_keys, suffix_values = mine.suffix()
                theirs.update(suffix_keys[row : row + 1], suffix_values[row : row + 1])
        return fork


def shared_prompt_attention(
    module: nn.Module,
    query: Float[Tensor, "rows heads 1 dim"],
    key: Float[Tensor, "rows kv_heads suffix dim"],
    value: Float[Tensor, "rows kv_heads suffix value_dim"],
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    nad_cache: SharedPromptCache | None = None,
    **others: Any,
) -> tuple[Float[Tensor, "rows 1 heads value_dim"], None]:
    """Attention of one new token in every row over the shared prompt and the row's own suffix.

    Raises NotShareable on an argument it does not know (sinks, position biases, chunked attention), and where what is
    cached is not what is attended to (DeepSeek's latents).
    """
    unknown = [name for name, v in others.items() if name not in _HARMLESS and v is not None and v is not False]
    if unknown or attention_mask is not None or nad_cache is None:
        raise NotShareable(", ".join(unknown) or "an attention mask")
    layer = nad_cache.layers[module.layer_idx]
    if any(_each(held) != _each(new) for held, new in ((layer.keys, key), (layer.values, value))):
        raise NotShareable("its cache holds something else than keys and values")
    nad_cache.attended += 1
    hidden = max(0, layer.get_seq_length() - sliding_window) if sliding_window else 0
    prompt_keys, prompt_values = layer.keys[0, :, hidden:], layer.values[0, :, hidden:]
    hidden = max(0, hidden - layer.keys.shape[2])
    key, value = key[:, :, hidden:], value[:, :, hidden:]

    rows, heads, _, dim = query.shape
    kv_heads, prompt, suffix = key.shape[1], prompt_keys.shape[1], key.shape[2]
    group = heads // kv_heads
    query = query.reshape(rows, kv_heads, group, dim) * (scaling if scaling is not None else dim**-0.5)
    folded = query.transpose(0, 1).reshape(kv_heads, rows * group, dim)
    on_prompt = torch.bmm(folded, prompt_keys.transpose(1, 2)).view(kv_heads, rows, group, prompt).transpose(0, 1)
    # With few queries and many keys, keys times queries is faster than queries times keys, and plain rows of queries
    # than transposed ones.
    on_suffix = (key @ query.transpose(2, 3).contiguous()).transpose(2, 3)
    scores = torch.cat([on_prompt, on_suffix], dim=-1)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    # Half precision is too coarse for a softmax: the stock attention takes it in float32 as well.
    exact = torch.promote_types(scores.dtype, torch.float32)
    weights = torch.softmax(scores, dim=-1, dtype=exact).to(query.dtype)
    on_prompt, on_suffix = weights.split([prompt, suffix], dim=-1)
    folded = on_prompt.transpose(0, 1).reshape(kv_heads, rows * group, prompt)
    out = torch.bmm(folded, prompt_values).view(kv_heads, rows, group, -1).transpose(0, 1)
    out = (on_suffix @ value).add_(out)
    return out.reshape(rows, 1, heads, -1), None


def _each(states: Tensor) -> tuple[int, int]:
    """Heads and their size."""
    return states.shape[1], states.shape[3]


@contextmanager
def shared_prompt_attention_in(model: nn.Module) -> Iterator[None]:
    """Run the model with this attention, and with its own one afterwards."""
    AttentionInterface.register(_NAME, shared_prompt_attention)
    config: Any = model.config
    own = config._attn_implementation
    config._attn_implementation = _NAME
    try:
        yield
    finally:
        config._attn_implementation = own
