"""The process that compares formulas for math_equality.py: JSON Lines in, JSON Lines out.

{"gold", "answer"} -> true, false or null (not decided, or it failed). Its replies are read one by one, so that a hang
is seen; its own limit (an alarm) comes first.
"""

import json
import logging
import os
import sys
from collections.abc import Iterable, Iterator

from math_verify.errors import TimeoutException

from nad.grading.formulas import compare


def replies(questions: Iterable[str]) -> Iterator[str]:
    """The line for each line, after one that says that this process is ready."""
    yield "ready"
    for line in questions:
        question = json.loads(line)
        try:
            reply = compare(question["gold"], question["answer"])
        except (Exception, TimeoutException):  # the comparison failed, whatever it raised: "not graded"
            reply = None
        yield json.dumps(reply)


def main() -> None:
    logging.disable(logging.CRITICAL)
    output = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    sys.stdout = sys.stderr  # what a library prints must not be taken for a reply
    for reply in replies(sys.stdin):
        print(reply, file=output, flush=True)


if __name__ == "__main__":
    main()
