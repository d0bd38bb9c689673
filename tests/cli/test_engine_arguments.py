"""What the command line tells an engine of its own."""

import pytest

from nad.cli.options import engine_arguments
from nad.errors import UsageError


def test_engine_arguments() -> None:
    assert engine_arguments(None, None, None, False) == {}
    assert engine_arguments(["max_num_seqs=8", "x=a=b"], 2, 3, True) == {
        "max_num_seqs": "8",
        "x": "a=b",
        "tensor_parallel_size": "2",
        "pipeline_parallel_size": "3",
        "untested_vllm": "true",
    }


@pytest.mark.parametrize(
    ("pairs", "tensor", "message"),
    [
        (["x"], None, "--engine-arg must be KEY=VALUE, got 'x'"),
        (["=1"], None, "--engine-arg must be KEY=VALUE"),
        (None, 0, "--tensor-parallel must be at least 1, got 0"),
    ],
)
def test_engine_arguments_that_say_nothing(pairs: list[str] | None, tensor: int | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        engine_arguments(pairs, tensor, None, False)
