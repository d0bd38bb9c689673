"""The values the paper prints in its Tables 1 to 3, to stand beside ours when model and task are the paper's."""

from collections.abc import Mapping
from dataclasses import dataclass

MODELS: Mapping[str, str] = {
    "qwen3-4b-thinking-2507": "Qwen3-4B-Think",
    "qwen3-4b-thinking-0527": "Qwen3-4B-Think",
    "deepseek-r1-0528-qwen3-8b": "R1-Qwen3-8B",
    "qwen3-4b-instruct-2507": "Qwen3-4B-Instruct",
    "qwen3-4b-instruct-0527": "Qwen3-4B-Instruct",
}
"""The last part of a hub id, in small letters, and the paper's short name."""

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "AIME24+25": ("aime24", "aime25"),
    "GPQA": ("gpqa",),
    "HumanEval": ("humaneval",),
    "LCBv5": ("lcb_v5",),
    "MBPP": ("mbpp",),
}
"""The paper's columns, and the tasks whose problems each of them pools."""

SCIENCE, CODE = ("AIME24+25", "GPQA"), ("HumanEval", "LCBv5", "MBPP")

PROBLEMS: Mapping[str, int] = {"AIME24+25": 60, "GPQA": 198, "HumanEval": 164, "LCBv5": 167, "MBPP": 500}
"""The paper's problems, read off its percentages."""

_NAMES = "The paper names Qwen3-4B-Thinking-0527 and -Instruct-0527; the published models are called -2507."
_AVG_ON_CODE = (
    "The paper's Avg@64 on code differs between its Tables 1 and 3 (Qwen3-4B-Think: HumanEval 96.0 and 97.0, LCBv5 "
    "61.9 and 58.7, MBPP 84.6 and 85.6; R1-Qwen3-8B: LCBv5 58.5 and 61.1, MBPP 83.7 and 84.6; Qwen3-4B-Instruct: "
    "HumanEval 90.8 and 89.6, LCBv5 34.1 and 31.1, MBPP 75.4 and 74.9), though it does not depend on early stopping."
)
NOTES: Mapping[int, tuple[str, ...]] = {
    1: (_NAMES, _AVG_ON_CODE, "The paper's 83.4 is not a share of its 60 problems of AIME24+25 (50 are 83.3)."),
    2: (_NAMES, "The paper's 78.4 is not a share of its 60 problems of AIME24+25 (47 are 78.3)."),
    3: (_NAMES, _AVG_ON_CODE, "The paper's 73.9 and 74.7 are not shares of the 500 problems of MBPP."),
}
"""What does not add up in the paper's own tables."""

_MODELS = ("Qwen3-4B-Think", "R1-Qwen3-8B", "Qwen3-4B-Instruct")
_METHODS = ("avg", "cons", "knn", "medoid", "dbscan", "minact")

# Accuracy: AIME24+25, GPQA, HumanEval, LCBv5, MBPP, Avg.
_TABLE_1 = """
74.6 66.3 96.0 61.9 84.6 76.7
86.7 68.2 - - - -
85.0 68.7 98.2 61.7 86.0 79.9
81.7 66.2 97.0 59.3 85.2 77.9
83.4 66.2 97.6 59.9 85.0 78.4
85.0 66.7 92.7 58.1 83.8 77.3
70.6 58.1 92.1 58.5 83.7 72.6
78.3 62.6 - - - -
78.3 62.6 89.6 57.5 84.4 74.5
75.0 61.1 91.5 55.1 85.4 73.6
73.3 60.1 90.9 55.7 85.4 73.1
75.0 61.1 90.2 59.3 79.0 72.9
51.7 59.2 90.8 34.1 75.4 62.2
66.7 61.1 - - - -
55.0 61.1 91.5 37.1 74.2 63.8
55.0 61.1 92.1 36.5 75.2 64.0
60.0 61.1 92.1 36.5 75.8 65.1
61.7 60.6 91.5 31.1 75.0 64.0
"""

# Accuracy, tokens in millions and their change in %, for AIME24+25 and GPQA; average accuracy.
_TABLE_2 = """
74.6 55.2 - 66.3 102.2 - 70.4
80.0 1.3 -97.6 67.2 2.0 -98.0 73.6
81.7 1.3 -97.6 68.2 2.0 -98.0 75.0
81.7 1.3 -97.6 65.7 2.0 -98.0 73.7
80.0 1.2 -97.8 67.7 1.8 -98.2 73.9
70.6 48.1 - 58.1 99.6 - 64.4
78.4 1.0 -97.9 56.1 1.8 -98.2 67.3
75.0 1.1 -97.7 54.0 1.9 -98.1 64.5
75.0 1.1 -97.7 54.5 1.9 -98.1 64.8
76.7 0.9 -98.1 58.1 1.7 -98.3 67.4
51.7 32.0 - 59.2 41.6 - 55.5
55.0 0.4 -98.8 58.6 0.9 -97.8 56.8
55.0 0.6 -98.1 56.6 1.0 -97.6 55.8
55.0 0.6 -98.1 56.6 1.0 -97.6 55.8
61.7 0.4 -98.8 63.1 0.9 -97.8 62.4
"""

# The same for HumanEval, LCBv5 and MBPP.
_TABLE_3 = """
97.0 52.2 - 58.7 191.9 - 85.6 169.8 - 80.4
97.6 1.1 -97.9 63.5 3.2 -98.3 85.2 3.5 -98.0 82.1
97.6 1.1 -97.9 59.9 3.3 -98.3 85.0 3.5 -98.0 80.8
97.6 1.1 -97.9 61.1 3.3 -98.3 85.2 3.6 -97.9 81.3
96.3 1.0 -98.1 65.9 3.2 -98.3 85.2 3.1 -98.2 82.4
92.1 49.3 - 61.1 190.4 - 84.6 171.6 - 79.3
94.5 0.9 -98.2 56.9 3.2 -98.3 83.2 3.3 -98.1 78.2
91.5 1.0 -98.0 58.7 3.2 -98.3 84.0 3.5 -98.0 78.1
91.5 1.0 -98.0 61.7 3.2 -98.3 83.0 3.5 -98.0 78.7
93.9 0.9 -98.2 58.7 2.9 -98.4 82.4 3.0 -98.2 78.3
89.6 6.0 - 31.1 26.6 - 74.9 37.1 - 65.2
90.2 0.4 -93.3 35.9 0.6 -97.7 73.9 1.4 -96.2 66.7
90.9 0.4 -93.3 36.5 0.7 -97.4 74.7 1.5 -96.0 67.4
90.9 0.4 -93.3 35.9 0.7 -97.4 76.2 1.5 -96.0 67.7
92.1 0.4 -93.3 31.7 0.6 -97.7 77.0 1.4 -96.2 66.9
"""


@dataclass(frozen=True)
class Published:
    """One cell of the paper: accuracy in %, tokens in millions, change of tokens in %; None where it prints none."""

    accuracy: float
    tokens: float | None = None
    change: float | None = None


def _number(text: str) -> float | None:
    return None if text == "-" else float(text)


def _read(table: str, methods: tuple[str, ...], columns: tuple[str, ...], width: int) -> dict:
    """Cells by (model, method, column); `width` numbers make a cell, a single one the average at the end."""
    lines = [[_number(t) for t in line.split()] for line in table.strip().splitlines()]
    keys = [(model, method) for model in _MODELS for method in methods]
    cells = {}
    for key, line in zip(keys, lines, strict=True):
        starts = [*range(0, width * len(columns), width), len(line) - 1]
        for column, start in zip((*columns, "Avg."), starts, strict=True):
            values = line[start : start + width]
            if values[0] is not None:
                cells[(*key, column)] = Published(*values)  # type: ignore[arg-type]
    return cells


_STOPPED = tuple(method for method in _METHODS if method != "cons")
TABLES: Mapping[int, Mapping[tuple[str, str, str], Published]] = {
    1: _read(_TABLE_1, _METHODS, SCIENCE + CODE, 1),
    2: _read(_TABLE_2, _STOPPED, SCIENCE, 3),
    3: _read(_TABLE_3, _STOPPED, CODE, 3),
}


def published(table: int, model: str, method: str, column: str) -> Published | None:
    """What the paper prints there, for a model named as on the hub or by its folder; None when it prints nothing."""
    short = MODELS.get(model.rstrip("/").rsplit("/", 1)[-1].lower(), "")
    return TABLES[table].get((short, method, column))
