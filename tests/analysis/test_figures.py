"""Every figure's numbers from planted runs, and its files."""

import csv
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hand import MANY, hand_digest, hand_run, named

pytest.importorskip("matplotlib", reason="figures need matplotlib: pip install 'nad[report]'")

from nad.analysis.figures import (
    all_figures,
    canvas,
    figure_2,
    figure_3,
    figure_4a,
    figure_4b,
    figure_4c,
    figure_6,
    figure_7,
    figure_8,
)
from nad.analysis.figures.canvas import png, save
from nad.analysis.requirements import Missing
from nad.analysis.summary import digest
from nad.errors import NadError
from nad.testing.planted_runs import PlantedSample, planted_problem, planted_run, without


def test_figure_2_correlations():
    # Points (100, 0.1), (200, 0.3), (300, 0.2): r = 1/2, and with one degree of freedom p = 2/3.
    sample = PlantedSample(tokens=96, chunk_neurons=(100, 200, 300), entropy=(0.1, 0.3, 0.2))
    drawn = figure_2(digest(planted_run([planted_problem("p", [sample])])))
    assert "entropy r = 0.500, p = 0.667" in drawn.caption and "self-certainty r = -0.500" in drawn.caption
    assert drawn.data["chunk_neurons"].tolist() == [100, 200, 300]
    assert drawn.data["mean_entropy"] == pytest.approx([0.1, 0.3, 0.2])


def test_figure_2_interval_resamples_problems():
    # All points of both problems lie on one line, so every resample has r = 1.
    assert "entropy r = 1.000 [1.000, 1.000], p < 0.001" in figure_2(hand_digest()).caption


def two_clusters():
    right = [replace(MANY, private=private) for private in range(1, 7)]
    samples = right + [replace(s, cluster=1, correct=False, entropy=(0.4, 0.4)) for s in right]
    return digest(planted_run([planted_problem("p", samples)]))


def test_figures_3_and_4a_place_clusters_apart():
    drawn, twin = figure_3(two_clusters()), figure_4a(two_clusters())
    place = np.stack([drawn.data["x"], drawn.data["y"]], axis=1)
    distance = np.linalg.norm(place[:, None] - place[None], axis=2)
    assert distance[:6, :6].max() < distance[:6, 6:].min()
    assert drawn.data["mean_entropy"] == pytest.approx([0.15] * 6 + [0.4] * 6)
    assert twin.data["correct"].tolist() == [1] * 6 + [0] * 6
    assert np.array_equal(twin.data["x"], drawn.data["x"])


def test_figure_4b_separation():
    # Right: 320 six times, 192. Wrong: 192, 320 three times, 448. Pairs: 6 x (0 + 3/2 + 1) + (1/2 + 3 + 1) of 35.
    drawn = figure_4b(hand_digest())
    assert f"AUROC {19.5 / 35:.3f}" in drawn.caption
    assert "0.667 (3 problems)" in drawn.caption  # within a, b, c: 0, 1, 1
    assert sorted(drawn.data["activated"]) == [192, 192, *[320] * 9, 448]


def test_figure_4c_growth():
    data = figure_4c(hand_digest()).data
    assert data["grade"] == ["correct"] * 2 + ["incorrect"] * 2 and data["tokens"] == [32, 64, 32, 64]
    correct, incorrect = (6 * 5 + 3) / 7, (3 + 3 * 5 + 7) / 5  # neurons a token
    assert data["mean"] == pytest.approx([32 * correct, 64 * correct, 32 * incorrect, 64 * incorrect])
    assert data["samples"] == [7, 7, 5, 5]


def test_figure_6_fewest_against_most():
    data = figure_6([hand_digest()]).data
    assert data["selector"] == ["MinAct", "MaxAct"]
    assert data["accuracy"] == pytest.approx([200 / 3, 100 / 3])


def test_figure_7_separation():
    right = PlantedSample(shared=40, private=20)
    wrong = replace(right, cluster=1, shared=20, private=40, correct=False)
    drawn = figure_7(digest(planted_run([planted_problem("p", [right, right, wrong, wrong])])))
    assert drawn.data["neurons_2000"].tolist() == [2000] * 4
    assert drawn.data["neurons_all"].tolist() == [3840] * 4
    # Right: all 2,000 are shared. Wrong: 1,280 shared and 720 private: 1280 / (1280 + 2 x 720). One of three others.
    assert drawn.data["agreement_2000"] == pytest.approx([1 / 3] * 2 + [1280 / 2720 / 3] * 2)
    assert drawn.data["agreement_all"] == pytest.approx([1 / 2 / 3] * 2 + [1 / 5 / 3] * 2)
    titles = [axis.get_title() for axis in drawn.figure.axes]
    assert titles[0] == "top-k = 2K\nAUROC 0.500" and titles[4] == "AUROC 1.000"


def test_figure_8_by_stop_position():
    data = figure_8(hand_digest()).data
    assert data["selector"][:2] == ["kNN", "kNN"] and data["position"][:2] == [32, 64]
    assert data["accuracy"][:2] == pytest.approx([200 / 3] * 2)
    assert data["tokens"][:2] == [480, 768]
    assert data["computed_tokens"][:2] == [3 * (16 + 4 * 16 + 32), 3 * (16 + 4 * 48)]


LACKING = {
    "grades": (without(hand_run(), grades=True), (figure_4a, figure_4b, figure_4c, figure_7, figure_8), "graded"),
    "signals": (without(hand_run(), signals=True), (figure_2, figure_3), "nad eval"),
    "peaks": (without(hand_run(), peaks=True), (figure_7,), "peak"),
    "n = 1": (planted_run([planted_problem("p", [MANY])]), (figure_3, figure_4a, figure_7, figure_8), "-n 64"),
    "one kind": (planted_run([planted_problem("p", [MANY] * 3)]), (figure_4b, figure_4c), "both correct and"),
    "stopped": (named(hand_run(), "planted", stop_at="32"), (figure_8,), "--stop-at none"),
    "short": (planted_run([planted_problem("p", [replace(MANY, tokens=9)] * 3)]), (figure_2,), "32 tokens"),
}


@pytest.mark.parametrize("name", LACKING)
def test_what_is_missing_is_one_line(name):
    run, figures, said = LACKING[name]
    for figure in figures:
        with pytest.raises(Missing) as caught:
            figure(digest(run))
        assert said in str(caught.value) and "\n" not in str(caught.value)
    drawn, missing = all_figures([digest(run)])
    assert len(drawn) + len(missing) == 8 and len(missing) >= len(figures)


def test_one_problem_is_drawn_without_intervals():
    drawn, _ = all_figures([digest(planted_run([hand_run().problems[0]]))])
    assert len(drawn) == 8
    assert "75.0 %," in next(d for d in drawn if d.name.startswith("fig8")).caption


def test_two_samples_can_be_placed():
    problem = planted_problem("p", [MANY, replace(MANY, correct=False)])
    assert figure_4a(digest(planted_run([problem]))).data["x"].tolist() == [0, 1]


def test_captions_name_the_run():
    drawn, missing = all_figures([hand_digest(task="gsm8k"), hand_digest(task="gsm8k")])
    assert not missing and len({d.name for d in drawn}) == len(drawn) == 15
    for figure in drawn:
        for word in ("planted", "gsm8k", "3 problems", "n = 4", "temperature 0.6", "top_k, k = 500"):
            assert word in figure.caption, figure.name


def test_files_hold_picture_and_numbers(tmp_path):
    drawn = figure_8(hand_digest(task="a/b $x^ $", model="org/m$"))
    before = png(drawn)
    paths = save(drawn, tmp_path)
    assert [p.name for p in paths] == [f"fig8_a-b-x_m.{kind}" for kind in ("png", "svg", "csv")]
    assert paths[0].read_bytes()[:4] == b"\x89PNG" and b"<svg" in paths[1].read_bytes()
    rows = list(csv.DictReader(paths[2].read_text().splitlines()))
    assert [int(r["tokens"]) for r in rows[:2]] == [480, 768]
    assert png(drawn) == before, "saving leaves the figure as it was"
    again = tmp_path / "again"
    again.mkdir()
    save(figure_8(hand_digest(task="a/b $x^ $", model="org/m$")), again)
    assert (again / paths[1].name).read_bytes() == paths[1].read_bytes(), "the same run gives the same file"


@pytest.mark.parametrize("make", [figure_2, figure_4b, figure_4c, figure_7, figure_8])
def test_no_text_overlaps(make):
    figure = make(hand_digest(task="a-task-with-a-long-name")).figure
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    boxes = []
    for axis in figure.axes:
        ticks = [
            tick.label1
            for scale in (axis.xaxis, axis.yaxis)
            for tick in scale.get_major_ticks()
            if min(scale.get_view_interval()) <= tick.get_loc() <= max(scale.get_view_interval())
        ]
        texts = [axis.title, axis.xaxis.label, axis.yaxis.label, *ticks]
        boxes += [(t.get_text(), t.get_window_extent(renderer)) for t in texts if t.get_text() and t.get_visible()]
    boxes += [(legend.get_texts()[0].get_text(), legend.get_window_extent(renderer)) for legend in figure.legends]
    assert len(boxes) > 8
    for i, (text, box) in enumerate(boxes):
        for other, another in boxes[i + 1 :]:
            assert not box.padded(-1).overlaps(another.padded(-1)), (text, other)


def test_without_matplotlib_the_command_is_named(monkeypatch):
    monkeypatch.setattr(canvas, "find_spec", lambda name: None if name == "matplotlib" else name)
    with pytest.raises(NadError, match=r"pip install 'nad\[report\]'"):
        figure_4b(hand_digest())


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "no backend at all", "svg", ""])
def test_a_notebook_s_backend_neither_breaks_figures_nor_is_changed(backend: str) -> None:
    """In a process of its own, as a notebook's `!nad figures` is: matplotlib reads $MPLBACKEND once."""
    draw = (
        "import os\nfrom nad.analysis.figures.canvas import Drawn, canvas, png\n"
        "with canvas(2, 2) as (figure, axes):\n    axes[0].plot([1, 2])\n"
        "data = png(Drawn('name', 'title', 'caption', figure, {}))\n"
        "import matplotlib\nset_ = matplotlib.rcParams._get('backend')\n"
        "print(data[1:4].decode(), os.environ['MPLBACKEND'], set_ == 'agg', sep='|')"
    )
    done = subprocess.run(
        [sys.executable, "-c", draw], env={**os.environ, "MPLBACKEND": backend}, capture_output=True, text=True
    )
    assert done.stdout == f"PNG|{backend}|False\n", done.stderr
