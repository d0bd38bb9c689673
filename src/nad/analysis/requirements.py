"""What tables and figures need of a run, and what to say when it is not there."""

from collections.abc import Callable, Mapping

import numpy as np

from nad.analysis.summary import RunDigest
from nad.errors import NadError


class Missing(NadError):
    """A run lacks what a table or figure needs; the message says what, and how to record it."""


def _grades(run: RunDigest) -> bool:
    return any(np.isfinite(p.correct).any() for p in run.problems)


def _both(run: RunDigest) -> bool:
    grades = np.concatenate([p.correct for p in run.problems])
    return bool((grades == 1).any() and (grades == 0).any())


_NEEDS: Mapping[str, tuple[Callable[[RunDigest], bool], str]] = {
    "full": (
        lambda run: run.manifest.stop_at == "none",
        "samples were stopped early, so their full answers are not known; record it with `nad eval --stop-at none`",
    ),
    "group": (
        lambda run: max(p.n for p in run.problems) > 1,
        "one sample a problem leaves nothing to choose from; record it with `nad eval -n 64`",
    ),
    "grades": (_grades, "no sample is graded; record it with `nad eval` and a task whose answers can be checked"),
    "both": (_both, "not both correct and incorrect samples; record more of it: more samples (-n) or more problems"),
    "problems": (
        lambda run: len(run.problems) > 1,
        "one problem gives no interval; record more of them with `nad eval` and a larger --limit",
    ),
    "signals": (
        lambda run: any(len(p.chunks) for p in run.problems),
        "no entropy and self-certainty of whole chunks of 32 tokens; record it with `nad eval`, which stores the "
        "signals, and answers of at least 32 tokens",
    ),
    "entropy": (
        lambda run: any(np.isfinite(p.entropy).any() for p in run.problems),
        "no entropy; record it with `nad eval`, which stores the signals",
    ),
    "peaks": (
        lambda run: any(p.strongest is not None for p in run.problems),
        "no peak scores; record it with `nad eval`, peaks included",
    ),
}


def lacks(run: RunDigest, *needs: str) -> str | None:
    """The first of these needs that the run does not meet, as one line; None when it meets all."""
    for name in needs:
        met, text = _NEEDS[name]
        if not met(run):
            return f"{run.label}: {text}"
    return None


def require(run: RunDigest, *needs: str) -> None:
    """Raises Missing with that line."""
    if line := lacks(run, *needs):
        raise Missing(line)
