"""How the table of `nad select` fits a terminal."""

import pytest
from hand import hand_run

from nad.analysis.comparison import Comparison, parse_stops, reselect
from nad.cli.show_runs import comparison_text
from nad.selection import parse_selector


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    selectors = [parse_selector(name) for name in ("knn", "minact", "deepconf-vote:keep=0.5,measure=lowest")]
    return reselect(hand_run(), selectors, parse_stops("32,none"))


def test_a_file_gets_all_of_it(comparison: Comparison) -> None:
    text = comparison_text(comparison)
    assert all(head in text for head in ("accuracy", "vs avg", "sampled", "saved", "computed", "distinct", "AUROC"))
    assert "no room for" not in text


def test_a_terminal_gets_what_it_has_room_for(comparison: Comparison) -> None:
    full = next(len(line) for line in comparison_text(comparison).splitlines() if line.startswith("method"))
    for columns, left_out in ((full, None), (full - 1, "no room for distinct:"), (80, "no room for distinct, c")):
        lines = comparison_text(comparison, columns).splitlines()
        assert max(map(len, lines)) <= columns
        assert any(line.startswith("method") and "accuracy" in line for line in lines)
        said = [line for line in lines if line.startswith("no room for")]
        assert not said if left_out is None else said[0].startswith(left_out)
