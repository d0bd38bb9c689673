"""The control for neuron agreement: the same selectors on the sets of a text's tokens, or of its pairs of tokens.

If these choose as well as the neurons do, looking inside the model has added nothing.
"""

from collections.abc import Sequence

import numpy as np

from nad.neurons.activation import ActivationSet, activation_set


def token_sets(completions: Sequence[Sequence[int]]) -> list[ActivationSet]:
    """The set of tokens of each completion, each with the place where it first stands, in the form of neurons."""
    return _first_places([np.asarray(tokens, dtype=np.uint64) for tokens in completions], offset=0)


def bigram_sets(completions: Sequence[Sequence[int]]) -> list[ActivationSet]:
    """The set of pairs of neighbouring tokens of each completion; a pair stands where its second token does."""
    arrays = [np.asarray(tokens, dtype=np.uint64) for tokens in completions]
    return _first_places([(a[:-1] << np.uint64(32)) | a[1:] for a in arrays], offset=1)


def _first_places(items: Sequence[np.ndarray], offset: int) -> list[ActivationSet]:
    """The sets of items, numbered over all sequences; each with its first place, `offset` added."""
    known, ids = np.unique(np.concatenate(items), return_inverse=True)
    ends = np.cumsum([len(array) for array in items])
    sets = []
    for own in np.split(ids, ends[:-1]):
        place = np.full(len(known), -1)
        place[own[::-1]] = np.arange(len(own))[::-1]  # of equal indices the last one counts: the first place
        item = np.flatnonzero(place >= 0)
        sets.append(activation_set(item, place[item] + offset, np.zeros(len(item))))
    return sets
