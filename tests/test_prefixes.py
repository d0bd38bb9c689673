"""Distinct prefixes and computed tokens, by hand and against a naive tree."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from nad.prefixes import PrefixTree, prefix_curve

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


@given(completions, st.randoms(use_true_random=False))
def test_a_tree_of_growing_samples_reaches_the_levels_of_the_curve(texts: list[list[int]], order: Any) -> None:
    """However the samples race ahead of each other; the last token of each says that it ended."""
    tree = PrefixTree(len(texts))
    rest = {i: list(c) for i, c in enumerate(texts)}
    levels = []
    while rest:
        i = order.choice(sorted(rest))
        token = rest[i].pop(0)
        tree.add(i, [token], ended=not rest[i])
        if not rest[i]:
            del rest[i]
        levels += list(tree.levels())
    curve = prefix_curve(texts)
    assert [level.distinct for level in levels] == curve.distinct.tolist()
    assert [level.computed for level in levels] == curve.computed.tolist()
    assert [level.position for level in levels] == list(range(1, len(levels) + 1))
    for level in levels:
        open_ = {tuple(c[: level.position]) for c in texts if len(c) > level.position}
        assert level.unfinished == sum(len(c) > level.position for c in texts)
        assert level.unfinished_prefixes == len(open_)


def test_a_tree_forgets_the_samples_that_are_dropped() -> None:
    tree = PrefixTree(3)
    for i, tokens in enumerate(([1, 2], [1, 3], [4, 5])):
        tree.add(i, tokens)
    assert [level.distinct for level in tree.levels()] == [2, 3]
    tree.keep([1])
    tree.add(1, [6], ended=True)
    (level,) = tree.levels()
    assert (level.distinct, level.computed, level.unfinished) == (1, 6, 0)
