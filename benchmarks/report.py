"""How long `nad report` takes, how large its file is, and how soon it is open: report.py [PROBLEMS [N [TOKENS]]].

The data is planted. Opening is measured in headless Chromium, from the address to the explorer's first drawn sample,
median of five; without Playwright or Chromium it is left out.
"""

import statistics
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from nad.analysis.report.document import report
from nad.testing.planted_runs import planted_crowd

CHROMIUM = Path("/usr/bin/chromium")


def opening(document: str, rounds: int = 5) -> float:
    """Seconds until the explorer of the document shows a sample, each time in a new window."""
    from playwright.sync_api import sync_playwright

    found = []
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        path = Path(folder) / "report.html"
        path.write_text(document, encoding="utf-8")
        browser = play.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        for _ in range(rounds):
            page = browser.new_context().new_page()
            start = time.perf_counter()
            page.goto(path.as_uri())
            page.wait_for_selector("#map g")
            found.append(time.perf_counter() - start)
            page.context.close()
        browser.close()
    return statistics.median(found)


def main() -> None:
    problems, n, tokens = [*map(int, sys.argv[1:]), *(100, 64, 512)[len(sys.argv) - 1 :]]
    run = planted_crowd(problems, n, tokens)
    start = time.perf_counter()
    document = report([run], "benchmarks/report.py")
    seconds = time.perf_counter() - start
    print(f"{problems} problems x {n} samples x {tokens} tokens: {seconds:.1f} s, {len(document) / 1e6:.1f} MB")
    if CHROMIUM.exists() and find_spec("playwright"):
        print(f"open after {opening(document):.2f} s")


if __name__ == "__main__":
    main()
