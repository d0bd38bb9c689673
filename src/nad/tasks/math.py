"""Problems whose answer is a number or a formula.

Sources: the hub data sets openai/gsm8k (main, test), HuggingFaceH4/MATH-500, ChilleD/SVAMP, HuggingFaceH4/aime_2024
and math-ai/aime25. Sample item (aime25):
    problem "Find the sum of all integer bases $b>9$ for which $17_b$ is a divisor of $97_b.$", answer "70"
The paper names no prompt; this is the one the makers of Qwen and DeepSeek-R1 recommend for mathematics.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from nad.errors import UsageError
from nad.grading.answers import extract_answer
from nad.grading.math_equality import equivalent, require_math_verify
from nad.tasks.base import Options, Problem, Task
from nad.tasks.source import Row, Source, load_problems, sha256


@dataclass(frozen=True)
class MathTask:
    """Answers are boxed formulas; with `last_number`, a text without a box answers with its last number."""

    name: str
    items: tuple[Problem, ...]
    last_number: bool = False
    votes: bool = True

    def __post_init__(self) -> None:
        require_math_verify()

    def problems(self) -> Sequence[Problem]:
        return self.items

    def data_sha256(self) -> str:
        return sha256(self.items)

    def prompt(self, problem: Problem) -> str:
        return f"{problem.question}\n\nPlease reason step by step, and put your final answer within \\boxed{{}}."

    def answer(self, problem: Problem, text: str) -> str | None:
        return extract_answer(text, self.last_number)

    def grade(self, problem: Problem, text: str) -> bool | None:
        found = extract_answer(text, self.last_number)
        return False if found is None else equivalent(str(problem.answer), found)


def _gsm8k(row: Row, index: int) -> Problem:
    """The answer follows `####` in the worked solution."""
    return Problem(f"gsm8k/{index}", row["question"], row["answer"].rpartition("####")[2].strip().replace(",", ""))


def _math500(row: Row, index: int) -> Problem:
    return Problem(
        row["unique_id"], row["problem"], str(row["answer"]), {"subject": row["subject"], "level": row["level"]}
    )


def _svamp(row: Row, index: int) -> Problem:
    return Problem(row["ID"], f"{row['Body'].rstrip(' .')}. {row['Question']}", _all_digits(row["Answer"], row["ID"]))


def _all_digits(number: object, id: str) -> str:
    """A number of a file, 145.0 or "145", with all its digits but no zeros after the point."""
    try:
        value = Decimal(str(number))
    except InvalidOperation:
        value = Decimal("nan")
    if not value.is_finite():
        raise UsageError(f"problem {id} of svamp has the answer {number!r}; it must be a number")
    written = f"{value:f}"
    return written.rstrip("0").rstrip(".") if "." in written else written


def _aime(row: Row, index: int) -> Problem:
    """An answer has three digits, or is written with its unit."""
    answer = str(row["answer"]).strip()
    return Problem(f"aime/{row['id']}", row["problem"], str(int(answer)) if answer.isdigit() else answer)


def _loader(
    name: str, source: Source, problem: Callable[[Row, int], Problem], last_number: bool
) -> Callable[[Options], Task]:
    return lambda options: MathTask(name, load_problems(name, source, problem, options), last_number)


GSM8K = Source("openai/gsm8k", 1319, ("question", "answer"), config="main")
MATH500 = Source("HuggingFaceH4/MATH-500", 500, ("problem", "answer", "subject", "level", "unique_id"))
SVAMP = Source("ChilleD/SVAMP", 1000, ("ID", "Body", "Question", "Answer"), split="train+test")
AIME24 = Source("HuggingFaceH4/aime_2024", 30, ("id", "problem", "answer"), split="train")
AIME25 = Source("math-ai/aime25", 30, ("id", "problem", "answer"))

TASKS: Mapping[str, Callable[[Options], Task]] = {
    "gsm8k": _loader("gsm8k", GSM8K, _gsm8k, True),
    "math500": _loader("math500", MATH500, _math500, False),
    "svamp": _loader("svamp", SVAMP, _svamp, True),
    "aime24": _loader("aime24", AIME24, _aime, False),
    "aime25": _loader("aime25", AIME25, _aime, False),
}
