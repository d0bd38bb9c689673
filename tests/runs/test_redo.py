"""Work is done again after a loss, a bounded number of times."""

import pytest

from nad.errors import NadError, ReplicaLost, UsageError
from nad.runs.redo import LOSSES, redone


def lossy(losses: int, waits: int = 0) -> tuple[list[str], object]:
    """What is called, and work that loses its replica so often; a new one is there after so many waits."""
    said: list[str] = []

    def again(seconds: float) -> bool:
        said.append("again")
        return said[::-1].index("made") > waits

    def make() -> int:
        said.append("made")
        if said.count("made") <= losses:
            raise ReplicaLost("replica 1 died", again)
        return 7

    return said, make


def test_what_was_lost_is_made_again_once_a_replica_is_free() -> None:
    said, make = lossy(2, waits=1)
    assert redone(make, lambda: said.append("check"), "it") == 7  # type: ignore[arg-type]
    assert said == ["made", "again", "check", "again", "made", "again", "check", "again", "made"]


def test_what_kills_every_replica_ends_with_one_line() -> None:
    said, make = lossy(99)
    with pytest.raises(NadError, match=r"problem a/1 lost 3 replicas in a row: replica 1 died; what is recorded is"):
        redone(make, lambda: None, "problem a/1")  # type: ignore[arg-type]
    assert said.count("made") == LOSSES


def test_waiting_ends_when_nobody_waits_any_more() -> None:
    said, make = lossy(1, waits=99)

    def check() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        redone(make, check, "it")  # type: ignore[arg-type]
    assert said == ["made", "again"]


def test_other_errors_are_not_for_it() -> None:
    def make() -> int:
        raise UsageError("no")

    with pytest.raises(UsageError, match="no"):
        redone(make, lambda: None, "it")
