"""What stands inside the model: an operation that keeps the gates of chosen rows, and the layers it is put on.

It is an operation of torch's library that writes into static buffers, so that it survives compilation and CUDA graphs;
nothing has to run eagerly for it.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from nad.errors import UsageError

VllmModule = Any
"""A module of vLLM's, whose attributes torch's types do not know."""
_IDENTITY_ROWS = 1024
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "SiluAndMul": nn.functional.silu,
    "GeluAndMul none": nn.functional.gelu,
    "GeluAndMul tanh": lambda x: nn.functional.gelu(x, approximate="tanh"),
}
_READS = (
    "the vLLM engine reads dense gated feed-forward layers (gate_up_proj, act_fn, down_proj), as in Llama, Qwen, "
    "Mistral, Gemma or Phi-3; take --engine transformers"
)


@torch.library.custom_op("nad::keep_gates", mutates_args=("kept",))
def keep_gates(
    merged: torch.Tensor, rows: torch.Tensor, slots: torch.Tensor, count: torch.Tensor, kept: torch.Tensor
) -> None:
    """kept[slots[i]] = x W_g of rows[i]; `merged` is x W_g beside x W_up.

    On a CPU the first `count` rows. On a GPU, where a graph replays the same work, all of them, but never more than
    the batch has tokens: unused slots are the last row of `kept`, which nobody reads.
    """
    used = min(len(merged), len(rows)) if merged.is_cuda else int(count)
    if used:
        gates = merged[:, : kept.shape[1]].index_select(0, rows[:used])
        kept.index_copy_(0, slots[:used], gates)


@keep_gates.register_fake
def _(merged: torch.Tensor, rows: torch.Tensor, slots: torch.Tensor, count: torch.Tensor, kept: torch.Tensor) -> None:
    return None


@dataclass(frozen=True, eq=False)
class CapturedLayer:
    """One feed-forward layer (of a shard, its part of the neurons), its W_out, and the gates of captured rows."""

    weight: Float[Tensor, "hidden neurons"]
    act: Callable[[Tensor], Tensor]
    kept: Float[Tensor, "slots neurons"]

    @property
    def neurons(self) -> int:
        return self.weight.shape[1]

    def gates(self, seen: Float[Tensor, "rows neurons"]) -> Float[Tensor, "rows neurons"]:
        """act(x W_g), in float32 or finer."""
        return self.act(seen.to(torch.promote_types(seen.dtype, torch.float32)))

    def down_proj(self) -> Float[Tensor, "hidden neurons"]:
        return self.weight


@dataclass(frozen=True, eq=False)
class Selection:
    """Which rows of the next forward pass are kept, and where: tensors that stay where they are."""

    rows: Int[Tensor, " most"]
    slots: Int[Tensor, " most"]
    count: Int[Tensor, ""]
    trash: int

    @classmethod
    def of(cls, most: int, trash: int, device: torch.device) -> "Selection":
        slots = torch.full((most,), trash, dtype=torch.int64, device=device)
        return cls(torch.zeros_like(slots), slots, torch.zeros((), dtype=torch.int64), trash)

    def set(self, rows: Sequence[int], slots: Sequence[int]) -> None:
        if self.rows.is_cuda:
            self.rows.zero_()
            self.slots.fill_(self.trash)
        self.rows[: len(rows)] = torch.tensor(rows, dtype=torch.int64, device=self.rows.device)
        self.slots[: len(slots)] = torch.tensor(slots, dtype=torch.int64, device=self.rows.device)
        self.count.fill_(len(rows))

    def clear(self) -> None:
        self.count.zero_()
        if self.rows.is_cuda:
            self.slots.fill_(self.trash)


def find_ffns(model: nn.Module, layers: int) -> list[VllmModule]:
    """The gated feed-forward modules of the `layers` layers this worker has, in order.

    Raises UsageError for a model laid out otherwise.
    """
    found: dict[int, VllmModule] = {}
    for name, module in model.named_modules():
        if "experts" in name or "Expert" in type(module).__name__:
            raise UsageError(f"{type(model).__name__} is a mixture of experts; {_READS}")
        number = re.search(r"\.layers\.(\d+)\.", f".{name}")
        if number and all(hasattr(module, part) for part in ("gate_up_proj", "act_fn", "down_proj")):
            _check(model, module, int(number[1]) in found)
            found[int(number[1])] = module
    if len(found) != layers:
        raise UsageError(f"{type(model).__name__}: {len(found)} of {layers} layers are gated as known; {_READS}")
    return [found[number] for number in sorted(found)]


def _check(model: nn.Module, ffn: VllmModule, twice: bool) -> None:
    sizes: Sequence[int] = getattr(ffn.gate_up_proj, "output_sizes", ())
    if twice or len(sizes) != 2 or sizes[0] != sizes[1] or _activation(ffn.act_fn) is None:
        what = type(ffn.act_fn).__name__
        raise UsageError(f"{type(model).__name__} has feed-forward layers of an unknown kind ({what}); {_READS}")


def _activation(act: VllmModule) -> Callable[[Tensor], Tensor] | None:
    name = f"{type(act).__name__} {getattr(act, 'approximate', '')}".strip()
    return _ACTIVATIONS.get(name)


def gate_bytes(ffns: Sequence[VllmModule], dtype: torch.dtype) -> int:
    """Bytes of the gates of one token in these layers."""
    return sum(local_neurons(ffn) for ffn in ffns) * dtype.itemsize


def local_neurons(ffn: VllmModule) -> int:
    return int(ffn.down_proj.input_size_per_partition)


def install(
    ffns: Sequence[VllmModule], selection: Selection, dtype: torch.dtype, device: torch.device
) -> list[CapturedLayer]:
    """Put the operation after every merged gate and up projection."""
    layers = []
    for ffn in ffns:
        kept = torch.zeros(selection.trash + 1, local_neurons(ffn), dtype=dtype, device=device)
        projection = ffn.gate_up_proj
        for name, tensor in (("rows", selection.rows), ("slots", selection.slots), ("kept", kept)):
            projection.register_buffer(f"nad_{name}", tensor, persistent=False)
        projection.register_buffer("nad_count", selection.count, persistent=False)
        projection.register_forward_hook(_hook)
        act = _activation(ffn.act_fn)
        assert act is not None
        layers.append(CapturedLayer(_down_weight(ffn.down_proj, dtype, device), act, kept))
    return layers


def _hook(projection: VllmModule, args: tuple[Tensor, ...], output: tuple[Tensor, Tensor | None] | Tensor) -> None:
    merged = output[0] if isinstance(output, tuple) else output
    torch.ops.nad.keep_gates(
        merged, projection.nad_rows, projection.nad_slots, projection.nad_count, projection.nad_kept
    )


def _down_weight(down: VllmModule, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "hidden neurons"]:
    """W_out: the weight itself where it is one; else, packed or quantised, what it makes of an identity matrix."""
    neurons, hidden = down.input_size_per_partition, down.output_size
    weight = getattr(down, "weight", None)
    if isinstance(weight, Tensor) and weight.shape == (hidden, neurons) and weight.dtype == dtype:
        return weight.detach()
    rows = []
    for start in range(0, neurons, _IDENTITY_ROWS):
        size = min(_IDENTITY_ROWS, neurons - start)
        unit = torch.zeros(size, neurons, dtype=dtype, device=device)
        unit[torch.arange(size), start + torch.arange(size)] = 1
        rows.append(down.quant_method.apply(down, unit))
    return torch.cat(rows).T.contiguous()
