"""Distinct prefixes and computed tokens, by hand and against a naive tree."""

from hypothesis import given
from hypothesis import strategies as st

from nad.prefixes import prefix_curve

completions = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=8)


def test_three_completions_that_part_one_after_the_other() -> None:
    curve = prefix_curve([(1, 2, 3), (1, 2, 4), (1, 5)])
    assert curve.distinct.tolist() == [1, 2, 3]
    assert curve.computed.tolist() == [1, 3, 5]


def test_a_completion_that_is_anothers_prefix_differs_where_it_ends() -> None:
    curve = prefix_curve([(1, 2), (1,)])
    assert curve.distinct.tolist() == [1, 2]
    assert curve.computed.tolist() == [1, 2]


def test_identical_completions_are_computed_once() -> None:
    curve = prefix_curve([(4, 5)] * 3)
    assert curve.distinct.tolist() == [1, 1]
    assert curve.computed.tolist() == [1, 2]


@given(completions)
def test_equals_a_naive_tree(tokens: list[list[int]]) -> None:
    curve = prefix_curve(tokens)
    nodes: set[tuple[int, ...]] = set()
    for position in range(1, max(map(len, tokens)) + 1):
        nodes |= {tuple(t[:position]) for t in tokens if len(t) >= position}
        assert curve.distinct[position - 1] == len({tuple(t[:position]) for t in tokens})
        assert curve.computed[position - 1] == len(nodes)
