"""Drawing tokens: pure functions of the logits and of uniform numbers fixed in advance."""

import math

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nad.errors import NadError

_FIRST_LOOK = 32
"""How many of the largest logits are sorted at first; the nucleus of a trained model rarely holds more."""
_BLOCK = 32
_CACHE_BYTES = 1 << 19
_CONFIDENCE_TOKENS = 20


def uniforms(seed: int, samples: Int[np.ndarray, " n"], start: int, stop: int) -> Float[np.ndarray, "n tokens"]:
    """u[i, t] in [0, 1) for the draws `start` <= t < `stop` of each sample: a function of (seed, sample, t) alone.

    Each sample has a Philox stream keyed by (seed, sample) and reads it from the front.
    """
    streams = [np.random.Philox(key=np.array([seed, i], dtype=np.uint64)) for i in samples]
    return np.stack([np.random.Generator(stream).random(stop)[start:] for stream in streams])


def draw_tokens(
    logits: Float[Tensor, "rows vocabulary"],
    row: Int[Tensor, " samples"],
    uniform: Float[Tensor, " samples"],
    temperature: float,
    top_p: float,
) -> Int[Tensor, " samples"]:
    """One token for each sample from the distribution of its row, by inversion of the nucleus' sorted CDF.

    The nucleus is the smallest set of most likely tokens whose probability at `temperature` reaches `top_p`.
    Only the largest logits are sorted: more of them for the rows whose nucleus is wider, all of them if need be. A
    draw depends on its own row and number alone, also among equal logits. Probabilities of logits in half precision
    are taken in float32.
    Raises NadError on logits that are not numbers.
    """
    normaliser, maxima = _normaliser_and_maxima(logits, temperature or 1.0)
    if not bool(normaliser.isfinite().all()):
        raise NadError("the model produced logits that are not finite numbers; try --dtype float32")
    if temperature == 0:
        return logits.argmax(dim=1)[row]
    tokens, undecided = torch.empty_like(row), torch.arange(len(row), device=row.device)
    width = min(_FIRST_LOOK, logits.shape[1])
    while True:
        token, decided = _look(logits, normaliser, maxima, row, uniform, temperature, top_p, width)
        tokens[undecided] = token
        if bool(decided.all()):
            return tokens
        undecided, uniform = undecided[~decided], uniform[~decided]
        rows, row = row[~decided].unique(return_inverse=True)
        logits, normaliser, maxima = logits[rows], normaliser[rows], maxima[rows]
        width = min(4 * width, logits.shape[1])


def _look(
    logits: Float[Tensor, "rows vocabulary"],
    normaliser: Float[Tensor, "rows 1"],
    maxima: Float[Tensor, "rows blocks"],
    row: Int[Tensor, " samples"],
    uniform: Float[Tensor, " samples"],
    temperature: float,
    top_p: float,
    width: int,
) -> tuple[Int[Tensor, " samples"], Bool[Tensor, " samples"]]:
    """Each sample's token by the `width` largest logits of its row, and whether these decide it."""
    values, indices = largest_logits(logits, width, maxima)
    cdf = (values.to(normaliser.dtype) / temperature - normaliser).double().exp().cumsum(dim=1)
    mass, known = _nucleus_mass(cdf, top_p, complete=width == logits.shape[1])
    target = uniform.double() * mass[row]
    place = torch.searchsorted(cdf[row], target[:, None], right=True)[:, 0]
    return indices[row, place.clamp(max=width - 1)], known[row] | (target < cdf[row, -1])


def _normaliser_and_maxima(
    logits: Float[Tensor, "rows vocabulary"], temperature: float
) -> tuple[Float[Tensor, "rows 1"], Float[Tensor, "rows blocks"]]:
    """The log of the sum of exp(logits / temperature), and each block's largest logit.

    Both are read off parts that stay in a processor's cache meanwhile.
    """
    rows = max(1, _CACHE_BYTES // logits[:1].nbytes) if logits.device.type == "cpu" else len(logits)
    exact = torch.promote_types(logits.dtype, torch.float32)
    parts = [_of_part(part.to(exact), temperature) for part in logits.split(rows)]
    normaliser, maxima = (torch.cat(column) for column in zip(*parts, strict=True))
    return normaliser, maxima


def _of_part(
    x: Float[Tensor, "rows vocabulary"], temperature: float
) -> tuple[Float[Tensor, "rows 1"], Float[Tensor, "rows blocks"]]:
    """torch.logsumexp in fewer passes, and the blocks' maxima. Not a number where the largest is infinite."""
    maxima = block_maxima(x)
    rest = x[:, maxima.shape[1] * _BLOCK :]
    largest = torch.cat([maxima, rest], dim=1).amax(dim=1, keepdim=True) / temperature
    return (x / temperature).sub_(largest).exp_().sum(dim=1, keepdim=True).log_().add_(largest), maxima


def block_maxima(logits: Float[Tensor, "rows vocabulary"]) -> Float[Tensor, "rows blocks"]:
    """The largest logit of each whole block of tokens. In float32 or finer; half precision takes ten times as long."""
    blocks = logits.shape[1] // _BLOCK
    return logits[:, : blocks * _BLOCK].view(len(logits), blocks, _BLOCK).amax(dim=2)


def largest_logits(
    logits: Float[Tensor, "rows vocabulary"], k: int, maxima: Float[Tensor, "rows blocks"]
) -> tuple[Float[Tensor, "rows k"], Int[Tensor, "rows k"]]:
    """The k largest logits of each row in descending order, and their tokens; `maxima` are the blocks' maxima.

    The k largest lie in the k blocks with the largest maxima (and the rest that fills no block), so only those
    are sorted: a maximum reads memory at full speed, a partial sort does not.
    """
    (rows, vocabulary), blocks = logits.shape, maxima.shape[1]
    if k * 4 > blocks:
        return tuple(torch.topk(logits, k, dim=1))  # type: ignore[return-value]
    blocked = logits[:, : blocks * _BLOCK].view(rows, blocks, _BLOCK)
    block = torch.topk(maxima, k, dim=1).indices
    chosen = blocked.gather(1, block[:, :, None].expand(-1, -1, _BLOCK)).flatten(1)
    tokens = (block[:, :, None] * _BLOCK + torch.arange(_BLOCK, device=logits.device)).flatten(1)
    rest = torch.arange(blocks * _BLOCK, vocabulary, device=logits.device).expand(rows, -1)
    top = torch.topk(torch.cat([chosen, logits[:, blocks * _BLOCK :]], dim=1), k, dim=1)
    return top.values, torch.cat([tokens, rest], dim=1).gather(1, top.indices)


def _nucleus_mass(
    cdf: Float[Tensor, "rows width"], top_p: float, complete: bool
) -> tuple[Float[Tensor, " rows"], Bool[Tensor, " rows"]]:
    """The nucleus' probability in each row, and whether it lies within the sorted part.

    If the nucleus is wider than the sorted part, its probability is known only for top_p = 1: then it is 1, and a draw
    below the sorted part's probability is decided all the same.
    """
    reached = cdf >= top_p
    inside = reached.any(dim=1)
    mass = torch.where(inside, cdf.gather(1, reached.int().argmax(dim=1, keepdim=True))[:, 0], cdf[:, -1])
    if complete:
        return mass, torch.ones_like(inside)
    if top_p == 1:
        return torch.ones_like(mass), torch.zeros_like(inside)
    return torch.where(inside, mass, torch.inf), inside


def token_signals(
    logits: Float[Tensor, "rows vocabulary"], row: Int[Tensor, " samples"], token: Int[Tensor, " samples"]
) -> Float[Tensor, "signals samples"]:
    """Log-probability, entropy, self-certainty and top-20 confidence of each sample's token, in the order of Signals.

    With x the logits and z their log-sum-exp: log p(y) = x_y - z; H = z - sum p x; KL(uniform || p) = z - mean(x)
    - log V (Kang et al. 2025); the confidence is z minus the mean of the 20 largest x (Fu et al. 2025).
    """
    exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
    normaliser = torch.logsumexp(exact, dim=1)
    mean_logit = torch.einsum("rv,rv->r", torch.exp(exact - normaliser[:, None]), exact)
    top = largest_logits(exact, min(_CONFIDENCE_TOKENS, exact.shape[1]), block_maxima(exact))[0].mean(dim=1)
    entropy = normaliser - mean_logit
    certainty = normaliser - exact.mean(dim=1) - math.log(exact.shape[1])
    logprob = exact[row, token] - normaliser[row]
    return torch.stack([logprob, entropy[row], certainty[row], (normaliser - top)[row]])
