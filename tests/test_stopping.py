"""When the stop rules stop."""

import pytest

from nad.stopping import At, Budget, Distinct, Never, Progress


def progress(n: int = 4, position: int = 5, computed: int = 12, rows: int = 2, samples: int = 3) -> Progress:
    return Progress(n, position, rows + n - samples, computed, rows, samples)


@pytest.mark.parametrize(("position", "stops"), [(4, False), (5, True), (6, True)])
def test_at_a_position(position: int, stops: bool) -> None:
    assert At(5).reached(progress(position=position)) is stops
    assert At(5).latest == 5


def test_never() -> None:
    assert not Never().reached(progress(position=10**6, computed=10**9))
    assert Never().latest is None


def test_distinct_waits_until_every_row_carries_one_sample() -> None:
    assert not Distinct().reached(progress(rows=2, samples=3))
    assert Distinct().reached(progress(rows=3, samples=3))
    assert Distinct(limit=5).reached(progress(position=5, rows=1, samples=4))
    assert not Distinct(limit=6).reached(progress(position=5, rows=1, samples=4))


def test_budget_counts_computed_tokens_by_default_32_a_sample() -> None:
    assert not Budget().reached(progress(n=4, computed=127))
    assert Budget().reached(progress(n=4, computed=128))
    assert Budget(10).reached(progress(computed=12))
    assert not Budget(13).reached(progress(computed=12))
