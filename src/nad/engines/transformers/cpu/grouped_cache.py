"""The rows' keys and values of all layers in one tensor each, laid out for the attention of one new token.

It does what `shared_prompt` does, for layers of one shape and in fewer, larger operations
(docs/decisions/0017-cpu-decoding-step.md). A product of one row's few queries with its own keys is too small to be
fast, so GROUP rows share one: their keys lie side by side, and of all scores those of a row's queries on its own keys
are kept.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from nad.engines.transformers.shared_prompt import SharedPromptCache

GROUP = 4
"""Rows whose queries and keys are multiplied in one product: 4 is fastest with 24 to 58 rows."""
_TOKENS = 32
"""Tokens there is room for at first."""
_SHORT = 128
"""Prompt tokens up to which a product with all rows' queries counts as small."""


class Slots(NamedTuple):
    """One layer's keys and values in one step, as views; `places` is the number of rows, rounded up to whole groups.

    `new_keys` and `new_values` are where the step's own go, the last of `keys` and `values`.
    """

    prompt_keys: Float[Tensor, "heads dim prompt"]
    prompt_values: Float[Tensor, "heads prompt dim"]
    keys: Float[Tensor, "head_groups dim group_tokens"]
    values: Float[Tensor, "head_places tokens dim"]
    new_keys: Float[Tensor, "heads groups group dim"]
    new_values: Float[Tensor, "heads rows dim"]

    @property
    def places(self) -> int:
        return self.new_keys.shape[1] * GROUP

    def last(self, tokens: int) -> "Slots":
        """What a sliding window over the last `tokens` tokens shows."""
        prompt, suffix = self.prompt_keys.shape[2], self.values.shape[1]
        unseen = max(0, prompt + suffix - tokens)
        later = max(0, unseen - prompt)
        return self._replace(
            prompt_keys=self.prompt_keys[:, :, unseen:],
            prompt_values=self.prompt_values[:, unseen:],
            keys=self.keys[:, :, later * GROUP :],
            values=self.values[:, later:],
        )


class GroupedCache:
    """The prompt's keys and values once, and those of every row after it, for layers that have one shape."""

    def __init__(self, prompt: SharedPromptCache) -> None:
        first = prompt.layers[0]
        assert first.keys is not None and first.values is not None
        keys, values, layers, heads = first.keys, first.values, len(prompt.layers), first.keys.shape[1]
        self._prompt_length = keys.shape[2]
        # Small products cost more in half precision than converting first.
        dtype = torch.promote_types(keys.dtype, torch.float32) if self._prompt_length <= _SHORT else keys.dtype
        # The products read both in the order they lie in.
        self._prompt = [
            (la.keys[0].to(dtype).transpose(1, 2).contiguous(), la.values[0].to(dtype).contiguous())
            for la in prompt.layers
        ]
        self.rows, self._length = 1, 0
        self._keys = keys.new_empty(layers, heads, 1, _TOKENS, GROUP, keys.shape[3])
        self._values = values.new_empty(layers, heads, GROUP, _TOKENS, values.shape[3])

    @property
    def places(self) -> int:
        """Rows there is room for, in whole groups; attention is taken for all of them."""
        return self._values.shape[2]

    @property
    def length(self) -> int:
        """Tokens of the prompt and of each row."""
        return self._prompt_length + self._length

    def next_token(self) -> list[Slots]:
        """Every row is one token longer: its place in each layer, and all that its attention reads."""
        self._make_room(self._length + 1)
        self._length += 1
        read = (
            self._keys.flatten(3, 4).flatten(1, 2)[:, :, : self._length * GROUP].transpose(2, 3),
            self._values.flatten(1, 2)[:, :, : self._length],
            self._keys[:, :, :, self._length - 1],
            self._values[:, :, : self.rows, self._length - 1],
        )
        of_layers = zip(*(part.unbind() for part in read), strict=True)
        return [Slots(*prompt, *views) for prompt, views in zip(self._prompt, of_layers, strict=True)]

    def rearrange(self, parents: Sequence[int]) -> "GroupedCache":
        """Row i continues row parents[i]; rows nobody continues are freed."""
        kept, self.rows = self.rows, len(parents)
        changed = [i for i, parent in enumerate(parents) if i != parent]
        if changed:
            self.rows = max(kept, self.rows)
            self._make_room(self._length)
            rows = torch.tensor([changed, [parents[i] for i in changed]], device=self._keys.device)
            (group, old_group), (place, old_place) = rows // GROUP, rows % GROUP
            keys, values = self._keys[:, :, :, : self._length], self._values[:, :, :, : self._length]
            keys[:, :, group, :, place] = keys[:, :, old_group, :, old_place]
            values[:, :, rows[0]] = values[:, :, rows[1]]
            self.rows = len(parents)
        self._make_room(self._length)
        return self

    def _make_room(self, tokens: int) -> None:
        """Room for `tokens` in every row; if rows need room too, for a quarter more of them than there are."""
        layers, heads, groups, room, _, dim = self._keys.shape
        needed = -(-self.rows // GROUP)
        spare = needed + needed // 4
        fits = needed <= groups <= spare + 1
        if fits and tokens <= room:
            return
        wanted, room = groups if fits else spare, room if tokens <= room else room + room // 2
        both, held = min(groups, wanted), slice(self._length)
        keys = self._keys.new_empty(layers, heads, wanted, room, GROUP, dim)
        keys[:, :, :both, held] = self._keys[:, :, :both, held]
        self._keys = keys
        values = self._values.new_empty(layers, heads, wanted * GROUP, room, self._values.shape[4])
        values[:, :, : both * GROUP, held] = self._values[:, :, : both * GROUP, held]
        self._values = values

    def fork(self, row: int) -> SharedPromptCache:
        """A single row: this prompt and the row's suffix as one text, in memory of its own; this one stays as it is."""
        fork = SharedPromptCache(len(self._prompt))
        group, place = divmod(row, GROUP)
        for i, (layer, (keys, values)) in enumerate(zip(fork.layers, self._prompt, strict=True)):
            layer.lazy_initialization(*(part[None].to(self._keys.dtype) for part in (keys.transpose(1, 2), values)))
            if self._length:
                suffix = self._keys[i, :, group, : self._length, place], self._values[i, :, row, : self._length]
                layer.update(*(part[None] for part in suffix))
        return fork


class Prompt(SharedPromptCache):
    """A prompt whose rows, once it splits into several, are kept in a GroupedCache."""

    def __init__(self, prompt: SharedPromptCache) -> None:
        super().__init__(0)
        self.layers = prompt.layers

    def rearrange(self, parents: Sequence[int]) -> "Prompt | GroupedCache":  # type: ignore[override]
        return self if len(parents) == 1 else GroupedCache(self).rearrange(parents)
