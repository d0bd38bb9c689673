"""How far the completions' neurons agree (Eq. 4)."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from nad.neurons.activation import ActivationSet

_BLOCK_BYTES = 8 << 20
"""Size of the float32 block of columns that one matrix product sees; it bounds the memory beside the result."""
_BLOCK_COLUMNS = 8192
"""A block has at least so many columns: with many samples, narrower products run at half the speed."""

_FEW_SAMPLES = 128
"""Up to so many samples common neurons are counted in bits; with more, products of floats are faster."""
_NEVER = 255


def consensus_matrix(sets: Sequence[ActivationSet]) -> Float[np.ndarray, "n n"]:
    """S_ij = |A_i & A_j| / |A_i | A_j| (Eq. 4); two empty sets agree fully (1.0)."""
    everything = 1 + max((int(s.first_token.max()) for s in sets if len(s)), default=0)
    return consensus_curve(sets, [everything])[0]


def consensus_curve(sets: Sequence[ActivationSet], positions: Sequence[int]) -> Float[np.ndarray, "positions n n"]:
    """The consensus matrices of the sets after each number of tokens in `positions`, in that order.

    Each neuron is written once, as the first of the sorted positions that has seen it. The 0/1 matrix of a position
    is then one comparison, and the intersections are counted over blocks of neurons. Beside the
    result, memory is one byte a set element and a block of 15 MB, or of 60 kB a sample for more than 256 samples,
    whatever the number of neurons.
    """
    if not sets:
        raise ValueError("at least one activation set is needed")
    ordered = np.unique(positions)
    if len(ordered) > 255:
        raise ValueError(f"at most 255 different positions in one call, got {len(ordered)}")
    first = [_first_position(s, ordered) for s in sets]
    sizes = np.stack([np.bincount(f, minlength=len(ordered))[: len(ordered)].cumsum() for f in first], axis=1)
    shared = _intersections(sets, first, len(ordered))
    diagonal = np.arange(len(sets))
    shared[:, diagonal, diagonal] = sizes
    union = sizes[:, :, None] + sizes[:, None, :] - shared
    agreement = np.divide(shared, union, out=np.ones(shared.shape), where=union > 0)
    return agreement[np.searchsorted(ordered, positions)]


def weighted_consensus_matrix(sets: Sequence[ActivationSet]) -> Float[np.ndarray, "n n"]:
    """S_ij = sum of min(p_i, p_j) / sum of max(p_i, p_j), p the neurons' peaks; two sets without any agree fully (1.0).

    With all peaks equal this is Eq. 4. A neuron that was not activated has p = 0, and so has one whose peak is
    negative: it was among a token's strongest, but pushed against it (docs/decisions/0024-weighted-agreement.md).
    The sums are over float16 values in float64. Memory beside the result is two blocks of neurons, as above.
    """
    n = len(sets)
    peaks = [np.maximum(s.peak.astype(float), 0) for s in sets]
    totals = np.array([p.sum() for p in peaks])
    neurons = 1 + max((int(s.neuron[-1]) for s in sets if len(s)), default=-1)
    width = max(_BLOCK_COLUMNS, _BLOCK_BYTES // (8 * n))
    edges = np.arange(0, neurons + width, width)
    cuts = [np.searchsorted(s.neuron, edges) for s in sets]
    smaller = np.zeros((n, n))
    for block, start in enumerate(edges[:-1]):
        inside = [slice(cut[block], cut[block + 1]) for cut in cuts]
        ids = [s.neuron[part] - np.uint32(start) for s, part in zip(sets, inside, strict=True)]
        table = np.zeros((width, n))
        for i in range(n):
            table[ids[i], i] = peaks[i][inside[i]]
        for i in range(n - 1):
            # Only the neurons of sample i can have a minimum above 0.
            others = table[ids[i], i + 1 :]
            smaller[i, i + 1 :] += np.minimum(others, peaks[i][inside[i], None], out=others).sum(axis=0)
    smaller += smaller.T
    smaller[np.arange(n), np.arange(n)] = totals
    larger = totals[:, None] + totals[None, :] - smaller
    return np.divide(smaller, larger, out=np.ones((n, n)), where=larger > 0)


def _first_position(activations: ActivationSet, ordered: Int[np.ndarray, " p"]) -> UInt8[np.ndarray, " m"]:
    """For each neuron the index of the first position whose prefix holds it; len(ordered) when none does."""
    last = int(ordered[-1])
    table = np.searchsorted(ordered, np.arange(last + 1), side="right").astype(np.uint8)
    return table.take(activations.first_token, mode="clip")


def _intersections(
    sets: Sequence[ActivationSet], first: Sequence[UInt8[np.ndarray, " _"]], positions: int
) -> Float[np.ndarray, "positions n n"]:
    """|A_i & A_j| of different samples at every position; neurons that one sample alone activated do not count."""
    n = len(sets)
    neurons = 1 + max((int(s.neuron[-1]) for s in sets if len(s)), default=-1)
    width = max(_BLOCK_COLUMNS, _BLOCK_BYTES // (4 * n))
    edges = np.arange(0, neurons + width, width)
    cuts = [np.searchsorted(s.neuron, edges) for s in sets]
    shared = np.zeros((positions, n, n))
    for block, start in enumerate(edges[:-1]):
        seen_by = np.full((n, width), _NEVER, dtype=np.uint8)
        for i, activations in enumerate(sets):
            inside = slice(cuts[i][block], cuts[i][block + 1])
            seen_by[i, activations.neuron[inside] - np.uint32(start)] = first[i][inside]
        second = _second_smallest(seen_by)
        order = np.argsort(second, kind="stable")
        counts = np.searchsorted(second[order], np.arange(positions), side="right")
        seen_by = np.take(seen_by, order[: counts[-1]], axis=1)
        for p, columns in enumerate(counts):
            shared[p] += _common(seen_by[:, :columns] <= p)
    return shared


def _common(active: Bool[np.ndarray, "n width"]) -> Float[np.ndarray, "n n"]:
    """How many columns each two rows have in common; with few rows the diagonal is left out.

    Few rows are compared bit by bit, 64 columns at once; many are faster as one product.
    """
    n, width = active.shape
    if n > _FEW_SAMPLES:
        rows = active.astype(np.float32)
        return rows @ rows.T
    packed = np.zeros((n, 8 * -(-width // 64)), dtype=np.uint8)
    packed[:, : -(-width // 8)] = np.packbits(active, axis=1)
    bits = packed.view(np.uint64)
    counts = np.zeros((n, n))
    for i in range(n - 1):
        counts[i, i + 1 :] = np.bitwise_count(bits[i + 1 :] & bits[i]).sum(axis=1, dtype=np.uint32)
    return counts + counts.T


def _second_smallest(rows: UInt8[np.ndarray, "n width"]) -> UInt8[np.ndarray, " width"]:
    """For each column the position from which on two samples share the neuron."""
    if len(rows) == 1:
        return np.full(rows.shape[1], _NEVER, dtype=np.uint8)
    smallest, second = np.minimum(rows[0], rows[1]), np.maximum(rows[0], rows[1])
    for row in rows[2:]:
        np.minimum(second, np.maximum(smallest, row), out=second)
        np.minimum(smallest, row, out=smallest)
    return second
