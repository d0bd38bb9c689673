"""A run's answers as a file for `nad eval --completions`: the same answers under another activation rule.

python runs/rescore.py RUN > answers.jsonl
nad eval --task TASK --completions answers.jsonl --activation top_k:position=own --out RUN-own
"""

import json
import sys
from collections.abc import Iterator

from nad.runs.store import open_run


def lines(path: str) -> Iterator[str]:
    for record in open_run(path, partial=True):
        for sample in record.samples:
            completion = sample.completion
            answer = {"problem": record.problem, "completion_tokens": list(completion.tokens)}
            yield json.dumps(answer | {"finish_reason": completion.finish_reason})


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in lines(sys.argv[1]))
