"""Which samples share a row, by hand and against a dictionary of prefixes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nad.engines.transformers.row_sharing import RowSharing


def test_samples_part_where_their_tokens_differ() -> None:
    rows = RowSharing(4)
    emission = rows.emit(np.array([7, 8, 7, 8]))
    assert emission.row.tolist() == [0, 0]
    assert emission.token.tolist() == [7, 8]
    assert emission.pair.tolist() == [0, 1, 0, 1]
    parents, tokens = rows.advance(emission, np.array([True, True]))
    assert parents.tolist() == [0, 0]
    assert tokens.tolist() == [7, 8]
    assert rows.row.tolist() == [0, 1, 0, 1]


def test_finished_samples_leave() -> None:
    rows = RowSharing(3)
    parents, tokens = rows.advance(rows.emit(np.array([7, 9, 7])), np.array([True, False]))
    assert (parents.tolist(), tokens.tolist()) == ([0], [7])
    assert rows.samples.tolist() == [0, 2]
    assert rows.row.tolist() == [0, 0]


def test_a_row_that_goes_on_keeps_its_place() -> None:
    rows = RowSharing(4)
    rows.advance(rows.emit(np.array([1, 2, 3, 3])), np.array([True, True, True]))
    parents, _ = rows.advance(rows.emit(np.array([5, 5, 6, 7])), np.array([True, True, True, True]))
    assert parents.tolist() == [0, 1, 2, 2]


def test_a_row_whose_samples_ended_stays_until_the_others_advance() -> None:
    rows = RowSharing(3)
    rows.advance(rows.emit(np.array([7, 8, 9])), np.ones(3, dtype=bool))
    rows.end(np.array([False, True, False]))
    assert (rows.samples.tolist(), rows.row.tolist()) == ([0, 2], [0, 2])
    parents, _ = rows.advance(rows.emit(np.array([5, 6])), np.ones(2, dtype=bool))
    assert parents.tolist() == [0, 2]


def test_without_sharing_each_sample_is_a_row() -> None:
    rows = RowSharing(3, share=False)
    parents, tokens = rows.advance(rows.emit(np.array([7, 7, 7])), np.ones(3, dtype=bool))
    assert (parents.tolist(), tokens.tolist()) == ([0, 0, 0], [7, 7, 7])
    assert rows.row.tolist() == [0, 1, 2]


@given(st.lists(st.lists(st.integers(0, 2), min_size=6, max_size=6), min_size=1, max_size=7))
def test_a_row_holds_the_tokens_of_all_its_samples(tokens: list[list[int]]) -> None:
    """Token 2 ends a sample. Each row's text is followed through its parents."""
    rows = RowSharing(len(tokens))
    held: list[tuple[int, ...]] = [()]
    for step in range(6):
        emission = rows.emit(np.array([tokens[i][step] for i in rows.samples]))
        living = emission.token != 2
        if not living.any():
            return
        parents, emitted = rows.advance(emission, living)
        held = [(*held[parent], int(token)) for parent, token in zip(parents, emitted, strict=True)]
        assert len(set(held)) == len(held)
        for sample, row in zip(rows.samples, rows.row, strict=True):
            assert held[row] == tuple(tokens[sample][: step + 1])
