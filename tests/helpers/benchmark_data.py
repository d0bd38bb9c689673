"""Where tests find benchmark files: $NAD_DATA, or shared/data beside the repository. They do not belong to it.

And files of the same form, made by a test.
"""

import json
import os
from pathlib import Path

import pytest


def data_file(name: str) -> Path:
    """The path of a benchmark file; skips the test where it is not."""
    beside = Path(__file__).parents[3] / "shared" / "data"
    path = Path(os.environ.get("NAD_DATA") or beside) / name
    if not path.is_file():
        pytest.skip(f"needs the benchmark file {name} in $NAD_DATA or in {beside}")
    return path


def jsonl(path: Path, *rows: dict[str, object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
