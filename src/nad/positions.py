"""Where a stop rule would have stopped completions that were written to their end."""

from collections.abc import Sequence

import numpy as np

from nad.prefixes import PrefixCurve
from nad.stopping import At, Never, Progress, StopRule


def stop_position(rule: StopRule, completions: Sequence[Sequence[int]], curve: PrefixCurve) -> int:
    """The position, in tokens, at which `rule` stops these completions; the longest one's length at most."""
    longest = len(curve.distinct)
    if isinstance(rule, Never):
        return longest
    if isinstance(rule, At):
        return min(rule.tokens, longest)
    n = len(completions)
    finished = np.bincount([len(c) for c in completions], minlength=longest + 1).cumsum()
    finished_rows = np.bincount([len(c) for c in set(map(tuple, completions))], minlength=longest + 1).cumsum()
    for position in range(1, longest):
        distinct, computed = int(curve.distinct[position - 1]), int(curve.computed[position - 1])
        rows = distinct - int(finished_rows[position])
        if rule.reached(Progress(n, position, distinct, computed, rows, n - int(finished[position]))):
            return position
    return longest
