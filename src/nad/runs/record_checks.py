"""What the values of a part must be to each other, beyond their types (docs/run-schema.md).

A part's checksum says that its bytes are those that were written, not that a writer knew what it did.
"""

from collections.abc import Iterator

import numpy as np

from nad.runs.records import GradedSample, ProblemRecord
from nad.stopping import CHUNK
from nad.types import Signals


def check_record(record: ProblemRecord) -> None:
    """Raise ValueError, with what is wrong, for what no run can have recorded."""
    n = len(record.samples)
    if record.consistent is not None and not 0 <= record.consistent < n:
        raise ValueError(f"of {n} samples the most consistent one cannot be {record.consistent}")
    if record.computed_tokens < 0 or min(record.prompt_tokens, default=0) < 0:
        raise ValueError("computed_tokens and the tokens of the prompt cannot be negative")
    for place, sample in enumerate(record.samples):
        if wrong := next(_faults(sample, place), None):
            raise ValueError(f"sample {place}: {wrong}")


def _faults(sample: GradedSample, place: int) -> Iterator[str]:
    completion, found = sample.completion, sample.completion.activations
    length, ends = len(completion.tokens), np.array(completion.text_end, dtype=np.int64)
    if completion.index != place:
        yield f"its number is {completion.index}"
    if min(completion.tokens, default=-1) < 0:
        yield "it has no tokens, or negative ones"
    if completion.finish_reason not in ("stop", "length", None):
        yield f"its finish_reason is {completion.finish_reason!r}"
    if not 0 <= sample.seconds < float("inf"):
        yield f"it took {sample.seconds} seconds"
    if found is not None and np.any(found.first_token >= length):
        yield "a neuron's first token lies past its end"
    if completion.signals is not None and not _fit(completion.signals, length):
        yield "its signals are not numbers, one for each token and at most one for each chunk"
    if len(ends) not in (0, length) or np.any(np.diff(ends, prepend=0, append=len(completion.text)) < 0):
        yield "text_end does not lead through its text"


def _fit(signals: Signals, tokens: int) -> bool:
    each = (signals.logprob, signals.entropy, signals.self_certainty, signals.confidence)
    few = len(signals.chunk_neurons) <= -(-tokens // CHUNK)
    return few and all(len(s) == tokens and not np.isnan(s).any() for s in each)
