"""The kinds of error a user can meet; the command line turns each into one line."""


class NadError(Exception):
    """The work failed (exit code 1). The message says what was wrong and what to do."""


class UsageError(NadError, ValueError):
    """The call was wrong (exit code 2). The message names the allowed values."""


class NoChoice(NadError):
    """The selector chose none of the answers: a vote that failed."""
