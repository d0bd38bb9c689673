"""The kinds of error a user can meet; the command line turns each into one line."""

from collections.abc import Callable


class NadError(Exception):
    """The work failed (exit code 1). The message says what was wrong and what to do."""


class UsageError(NadError, ValueError):
    """The call was wrong (exit code 2). The message names the allowed values."""


class NoChoice(NadError):
    """The selector chose none of the answers: a vote that failed."""


class ReplicaLost(NadError):
    """The process that held a rollout died, and the samples with it.

    They can be drawn again from their start, which gives the same ones: `again(seconds)` waits at most so long for a
    replica that is free, and says whether there is one. It raises NadError when there will be none.
    """

    def __init__(self, text: str, again: Callable[[float], bool]) -> None:
        super().__init__(text)
        self.again = again
