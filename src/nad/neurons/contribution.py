"""Each neuron's push on an emitted token, and which pushes count (Eqs. 1, 5 and 6)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nad.errors import NadError


def neuron_logits(
    down_proj: Float[Tensor, "hidden neurons"],
    unembed: Float[Tensor, "tokens hidden"],
    out: Float[Tensor, "tokens neurons"] | None = None,
) -> Float[Tensor, "tokens neurons"]:
    """What one unit of each neuron adds to a token's logit: the rows y_j of W_u W_out (Eq. 1), for one layer.

    It depends on the token alone. `unembed` holds the rows y_j of W_u; no norm lies between the two. Times the gates
    act(x W_g) of the position that emitted y_j it is the neuron's signed push on the logit. The result goes into
    `out`, if given.
    """
    return torch.mm(unembed, down_proj, out=out)


def strongest(
    scores: Float[Tensor, "tokens layers neurons"], k: int, per_layer: int
) -> tuple[Float[Tensor, "tokens top"], Int[Tensor, "tokens top"]]:
    """The `per_layer` largest scores of every layer (Eq. 5), of those the k largest, and their neurons, for each token.

    In any order; a neuron is layer * neurons + i, and the smallest of the scores is eta (Eq. 6). Instead of sorting
    layers, a bound from below leaves out nearly all: every layer is cut into at most `per_layer` blocks, and k of the
    kept scores reach the k-th largest of all blocks' maxima. Raises NadError when these are not finite numbers.
    """
    tokens, layers, neurons = scores.shape
    kept = min(per_layer, neurons)
    k = min(k, layers * kept)
    maxima = _block_maxima(scores, kept).flatten(1)
    if not bool(maxima.isfinite().all()):
        raise NadError("neuron scores are not finite numbers; try --dtype float32")
    bound = torch.topk(maxima, k, dim=1, sorted=False).values.amin(dim=1, keepdim=True)
    place = _cut_to(kept, scores, (scores.flatten(1) >= bound).flatten().nonzero()[:, 0])
    token = place // (layers * neurons)
    counts = torch.bincount(token, minlength=tokens)
    column = torch.arange(len(place), device=place.device) - (counts.cumsum(0) - counts)[token]
    shape = (tokens, int(counts.max()))
    found, neuron = scores.new_full(shape, -torch.inf), place.new_zeros(shape)
    found[token, column], neuron[token, column] = scores.flatten()[place], place - token * (layers * neurons)
    top = torch.topk(found, k, dim=1, sorted=False)
    return top.values, neuron.gather(1, top.indices)


def _block_maxima(scores: Float[Tensor, "tokens layers neurons"], blocks: int) -> Float[Tensor, "tokens layers blocks"]:
    """The maxima of each layer's neurons i, i + blocks, i + 2 * blocks, ..."""
    whole = scores.shape[2] // blocks * blocks
    maxima = scores[:, :, :whole].unflatten(2, (-1, blocks)).amax(dim=2)
    rest = scores[:, :, whole:]
    some = maxima[:, :, : rest.shape[2]]
    torch.maximum(some, rest, out=some)
    return maxima


def _cut_to(
    kept: int, scores: Float[Tensor, "tokens layers neurons"], place: Int[Tensor, " found"]
) -> Int[Tensor, " some"]:
    """The places in `scores` that are among the `kept` largest of their token's layer."""
    neurons = scores.shape[2]
    layer = place // neurons
    full = (torch.bincount(layer) > kept).nonzero()[:, 0]
    if not len(full):
        return place
    largest = torch.topk(scores.flatten(0, 1)[full], kept, dim=1, sorted=False).indices
    allowed = torch.zeros(len(full), neurons, dtype=torch.bool, device=place.device).scatter_(1, largest, True)
    number = full.new_full((scores.shape[0] * scores.shape[1],), -1)
    number[full] = torch.arange(len(full), device=place.device)
    number = number[layer]
    return place[(number < 0) | allowed[number, place % neurons]]
