"""How long `nad report` takes, and how large its file is, on planted data: report.py [PROBLEMS [N [TOKENS]]]."""

import sys
import time

from nad.analysis.planted import planted_crowd
from nad.analysis.report import report


def main() -> None:
    problems, n, tokens = [*map(int, sys.argv[1:]), *(100, 64, 512)[len(sys.argv) - 1 :]]
    run = planted_crowd(problems, n, tokens)
    start = time.perf_counter()
    document = report([run], "benchmarks/report.py")
    seconds = time.perf_counter() - start
    print(f"{problems} problems x {n} samples x {tokens} tokens: {seconds:.1f} s, {len(document) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
