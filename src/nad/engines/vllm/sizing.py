"""How much memory the capture takes: what the how-to page's table is computed with."""

from dataclasses import dataclass

GATE_BYTES = 256 << 20
"""Gates a worker holds before it scores them."""
SCORED_ROWS = 256
"""Positions of a given text whose gates are kept in one forward pass."""
_ENTRY_BYTES = 8
"""A neuron's number and its score."""


@dataclass(frozen=True)
class Sizes:
    """A model's sizes, as far as the capture's memory depends on them. `itemsize` is 2 in half precision."""

    layers: int
    neurons_per_layer: int
    itemsize: int = 2

    @property
    def neurons(self) -> int:
        return self.layers * self.neurons_per_layer

    @property
    def gate_bytes(self) -> int:
        """Gates of one token."""
        return self.neurons * self.itemsize


def held_bytes(sizes: Sizes, workers: int = 1, sequences: int = 256) -> int:
    """Static buffers of gates in each of `workers` workers, where `sequences` run at once."""
    rows = max(sequences + SCORED_ROWS, GATE_BYTES * workers // sizes.gate_bytes) + 1
    return rows * sizes.gate_bytes // workers


def sequence_bytes(tokens: int, k: int = 500) -> int:
    """What is held of one captured sequence of so many tokens, each of which activates k neurons."""
    return tokens * k * _ENTRY_BYTES


MODELS = {
    "Qwen3-4B": Sizes(36, 9728),
    "Llama-3.1-8B": Sizes(32, 14336),
    "Qwen3-32B": Sizes(64, 25600),
    "Llama-3.3-70B": Sizes(80, 28672),
}


def table() -> list[str]:
    """The rows of the how-to page."""
    rows = []
    for name, sizes in MODELS.items():
        shape = f"{sizes.layers} x {sizes.neurons_per_layer:,} = {sizes.neurons:,}"
        held = f"{held_bytes(sizes) / 1e9:.2f} GB"
        one, many = sequence_bytes(32) / 1e3, 64 * sequence_bytes(512) / 1e6
        rows.append(f"| {name} | {shape} | {sizes.gate_bytes / 1e6:.2f} MB | {held} | {one:.0f} kB | {many:.0f} MB |")
    return rows
