"""What the how-to page says of memory, and that the page says what the functions compute."""

from pathlib import Path

from nad.engines.vllm.sizing import GATE_BYTES, SCORED_ROWS, Sizes, held_bytes, sequence_bytes, table

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "from-one-gpu-to-a-cluster.md"


def test_sizes_that_can_be_checked_by_hand() -> None:
    """2 layers of 1000 neurons in half precision: 4000 bytes a token."""
    sizes = Sizes(2, 1000)
    assert (sizes.neurons, sizes.gate_bytes) == (2000, 4000)
    assert held_bytes(sizes) == (GATE_BYTES // 4000 + 1) * 4000
    large = Sizes(100, 100_000)
    assert held_bytes(large) == (256 + SCORED_ROWS + 1) * 20_000_000
    assert held_bytes(large, workers=4) == held_bytes(large) // 4
    assert sequence_bytes(32) == 32 * 500 * 8


def test_the_page_s_table_is_computed() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for row in table():
        assert row in page
