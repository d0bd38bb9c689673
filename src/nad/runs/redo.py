"""Work that is done again from its start where the process that held it died (docs/decisions/0063-replicas.md)."""

from collections.abc import Callable
from typing import TypeVar

from nad.errors import NadError, ReplicaLost

T = TypeVar("T")

LOSSES = 3
"""A problem that has lost so many replicas is taken for what killed them."""
_WAIT_S = 0.2


def redone(make: Callable[[], T], check: Callable[[], None], what: str) -> T:
    """What `make` returns; where its replica dies it is called again, once one is free.

    `check` is called while it waits. Raises NadError after so many losses, naming `what` was made.
    """
    for loss in range(1, LOSSES + 1):
        try:
            return make()
        except ReplicaLost as error:
            lost = error
        while loss < LOSSES and not lost.again(_WAIT_S):
            check()
    raise NadError(f"{what} lost {LOSSES} replicas in a row: {lost}; what is recorded is kept (--resume)") from lost
