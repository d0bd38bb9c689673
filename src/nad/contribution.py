"""Each neuron's push on an emitted token, and which pushes count (Eqs. 1, 5 and 6)."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


def neuron_logits(
    down_proj: Float[Tensor, "hidden neurons"], unembed: Float[Tensor, "tokens hidden"]
) -> Float[Tensor, "tokens neurons"]:
    """What one unit of each neuron adds to a token's logit: the rows y_j of W_u W_out (Eq. 1), for one layer.

    It depends on the token alone. `unembed` holds the rows y_j of W_u; no norm lies between the two.
    """
    return unembed @ down_proj


def contribution_scores(
    gate: Float[Tensor, "tokens neurons"],
    down_proj: Float[Tensor, "hidden neurons"],
    unembed: Float[Tensor, "tokens hidden"],
) -> Float[Tensor, "tokens neurons"]:
    """Each neuron's push on the logit of the emitted token y_j (Eq. 1), signed, for one layer.

    `gate` is act(x W_g) at the step that emitted y_j; `unembed` holds the rows y_j of W_u.
    """
    return neuron_logits(down_proj, unembed) * gate


def strongest_per_layer(
    scores: Float[Tensor, "tokens neurons"], per_layer: int
) -> tuple[Float[Tensor, "tokens kept"], Int[Tensor, "tokens kept"]]:
    """The `per_layer` largest scores of one layer and their neurons, for each token (Eq. 5)."""
    kept = torch.topk(scores, min(per_layer, scores.shape[1]), dim=1, sorted=False)
    return kept.values, kept.indices


def largest_places(
    scores: Float[np.ndarray, "tokens neurons"], k: int
) -> tuple[Float[np.ndarray, "tokens kept"], Int[np.ndarray, "tokens kept"]]:
    """`strongest_per_layer` on a CPU, where numpy's partition is two to three times faster than torch.topk.

    In any order; what is not a number counts as largest, as it does for torch.
    """
    tokens, neurons = scores.shape
    k = min(k, neurons)
    least = np.partition(scores, -k, axis=1)[:, -k, None]
    reached = scores >= least
    row = neurons * np.arange(tokens)[:, None]
    # In every row k numbers or more reach the least of the k largest, unless that is not a number.
    if np.isnan(least).any() or np.count_nonzero(reached) != tokens * k:
        place = np.argpartition(scores, -k, axis=1)[:, -k:]
    else:
        place = np.flatnonzero(reached).reshape(tokens, k) - row
    return scores.ravel()[place + row], place


def strongest(
    scores: Float[Tensor, "tokens kept"], neuron: Int[Tensor, "tokens kept"], k: int
) -> tuple[Float[Tensor, "tokens top"], Int[Tensor, "tokens top"]]:
    """The k largest of the scores all layers kept, and their neurons; the smallest of them is eta (Eq. 6)."""
    top = torch.topk(scores, min(k, scores.shape[1]), dim=1, sorted=False)
    return top.values, neuron.gather(1, top.indices)
