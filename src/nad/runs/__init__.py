"""Recorded runs: what was sampled for each problem and how it was graded, in memory and on disk."""

from nad.runs.records import GradedSample, Manifest, MemoryRun, ProblemRecord, Run
from nad.runs.store import RunStore, open_run

__all__ = ["GradedSample", "Manifest", "MemoryRun", "ProblemRecord", "Run", "RunStore", "open_run"]
