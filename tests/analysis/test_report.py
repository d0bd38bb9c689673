"""The report: what stands in the file, and what a browser makes of it."""

import base64
import gzip
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from chromium import chromium
from hand import hand_run, named

pytest.importorskip("matplotlib", reason="figures need matplotlib: pip install 'nad[report]'")

from nad.analysis.report import document as module
from nad.analysis.report import explorer_data as explorer
from nad.analysis.report.document import report
from nad.analysis.summary import digest
from nad.testing.planted_runs import planted_crowd

EVIL = "</script><script>window.hacked=1</script><img src=x onerror='window.hacked=1'> &amp; $x$ ${y} \u2028 \U0001f600"


def evil_run():
    """The hand run, in which everything a model or a data set could write tries to become markup."""
    run = named(hand_run(), f"planted {EVIL}", command=EVIL, task=f"t {EVIL}")
    first = run.problems[0]
    samples = [
        replace(s, answer=EVIL, completion=replace(s.completion, text=f"{EVIL} {i}", text_end=()))
        for i, s in enumerate(first.samples)
    ]
    return replace(run, problems=[replace(first, problem=EVIL, samples=tuple(samples)), *run.problems[1:]])


@pytest.fixture(scope="module")
def document():
    return report([evil_run()], f"nad report {EVIL}")


def data(document, name):
    found = re.search(rf'<script type="text/plain" id="{name}">([^<]*)</script>', document)
    return json.loads(gzip.decompress(base64.b64decode(found[1])))


def test_only_our_script_and_no_address(document):
    scripts = re.findall(r"<script[^>]*>", document)
    assert [s for s in scripts if "text/plain" not in s] == ["<script>"]
    assert "<img src=x" not in document
    assert not re.search(r"""(?:src|href|url)\s*[=(]\s*["']?(?:https?:)?//""", document)


def test_data_of_the_explorer(document):
    picture, texts = data(document, "picture-0"), data(document, "texts-0")
    assert data(document, "index")[0]["problems"][1] == {"name": "b", "correct": 0.25}
    assert texts["texts"][2] == f"{EVIL} 2"
    assert picture["positions"] == [32, 64]
    assert picture["sizes"] == [[160, 160, 160, 96], [320, 320, 320, 192]]
    assert picture["correct"] == [1, 1, 1, 0]
    assert picture["chosen"]["minact"] == [3, 3]
    agreement = np.frombuffer(base64.b64decode(picture["agreement"]), np.uint8).reshape(2, 6)
    # Of (0,1) (0,2) (0,3) (1,2) (1,3) (2,3): 4 / 6 within the cluster, 0 across.
    assert agreement.tolist() == [[170, 170, 0, 170, 0, 0]] * 2


def test_mds_recovers_a_plane():
    points = np.random.default_rng(0).normal(size=(7, 2))
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)
    place = explorer.classical_mds(distance)
    assert np.linalg.norm(place[:, None] - place[None], axis=2) == pytest.approx(distance)
    assert explorer.classical_mds(np.zeros((1, 1))).shape == (1, 2)


def test_positions_are_turned_to_lie_close():
    rng = np.random.default_rng(1)
    similarity = 1 - np.abs(np.subtract.outer(*[rng.random(8)] * 2))
    early, late = explorer.embeddings(np.stack([similarity, similarity]))
    assert early == pytest.approx(late)


def test_summary_tables_figures_and_origin(document):
    for text in ("58.3 %", "66.7 %", "37.5%", "Table 1.", "Table 2.", "Figs. 8-10", "Not shown", "Table 3: no run"):
        assert text in document
    assert document.count("data:image/png") == 8
    assert "&lt;/script&gt;&lt;script&gt;window.hacked=1" in document
    assert "planted data" in report([hand_run()], "x")


def test_long_texts_give_way_to_the_size(monkeypatch):
    run = planted_crowd(2, 8, 512)
    whole = len(report([run], "x").encode())
    monkeypatch.setattr(module, "BYTES", whole - 500)
    smaller = report([run], "x")
    assert len(smaller.encode()) <= whole - 500
    kept = [text for i in (0, 1) for text in data(smaller, f"texts-{i}")["texts"]]
    assert any("characters left out" in text for text in kept)


def test_lone_surrogates_are_shown_as_replaced():
    assert json.loads(gzip.decompress(base64.b64decode(explorer.packed("\ud800x")))) == "?x"


def test_one_sample_and_no_grades_still_make_a_report():
    run = hand_run()
    single = replace(run, problems=[replace(p, samples=(replace(p.samples[0], correct=None),)) for p in run.problems])
    document = report([single], "x")
    assert "not graded" in document and "no sample is graded" in document
    assert digest(single).problems[0].n == 1


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


class Opened:
    """A report in a browser window, with whatever the browser complained about or asked the network for."""

    def __init__(self, browser, document, folder, **options):
        self.complaints, self.asked = [], []
        path = folder / "report.html"
        path.write_text(document, encoding="utf-8")
        self.page = browser.new_context(**options).new_page()
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on(
            "request", lambda r: self.asked.append(r.url) if not r.url.startswith(("file:", "data:")) else None
        )
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("#map g")

    def text(self, selector):
        return self.page.inner_text(selector)


@pytest.fixture
def opened(browser, document, tmp_path):
    found = Opened(browser, document, tmp_path)
    yield found
    assert found.complaints == []
    assert [url for url in found.asked if not url.startswith(("file:", "data:"))] == []
    assert found.page.evaluate("window.hacked") is None
    found.page.context.close()


def test_slider_moves_sizes_matrix_and_choices(opened):
    page = opened.page
    assert "After 32 tokens: 4 of 4 prefixes are distinct; 128 tokens sampled, 80 of them computed." in opened.text(
        "#account"
    )
    before = page.evaluate("document.getElementById('matrix').toDataURL()")
    assert "96 (sample 3) to 160" in opened.text("#sizes-text")
    page.focus("#stop")
    page.keyboard.press("ArrowRight")
    assert opened.text("#stop-text") == "64 (end)"
    assert page.get_attribute("#stop", "aria-valuetext") == "64 (end) tokens"
    assert "192 (sample 3) to 320" in opened.text("#sizes-text")
    assert page.evaluate("document.getElementById('matrix').toDataURL()") == before, "S is the same by planting"
    row = page.locator("#choices tr", has_text="minact").first.inner_text().split()
    assert row == ["minact", "3", "incorrect", "192"]


def test_clicking_a_point_shows_its_text(opened):
    opened.page.locator("#map g[data-sample='3']").click()
    assert opened.text("#sample-title").startswith("Sample 3: incorrect, answer </script>")
    assert opened.page.locator("#sample-text").text_content() == f"{EVIL} 3"
    assert "frame is sample 3" in opened.text("#matrix-text")


def test_keyboard_goes_through_the_samples(opened):
    page = opened.page
    page.focus("#map g[tabindex='0']")
    page.keyboard.press("End")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert opened.text("#sample-title").startswith("Sample 1: correct")
    assert page.evaluate("document.activeElement.dataset.sample") == "1"


def test_problem_and_colour_are_chosen(opened):
    page = opened.page
    page.select_option("#problem", index=2)
    # A locator, not wait_for_function: that would evaluate a string, which the page's policy forbids.
    page.locator("#sample-text", has_text=re.compile(r"^\s*planted answer")).wait_for()
    assert "correct (2)" not in opened.text("#legend") and "correct (3)" in opened.text("#legend")
    page.select_option("#colour", "lengths")
    assert "64 tokens" in opened.text("#legend")
    page.click("#choices tr:has-text('maxact') button")
    assert opened.text("#sample-title").startswith("Sample 3: incorrect, answer 8, 64 tokens, 224 neurons here")
    # At half of its tokens half of the text has been written; the rest is dimmed.
    assert page.locator("#sample-text .after").text_content() == "planted answer 8"[8:]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone_and_dark_mode(browser, document, tmp_path, scheme):
    found = Opened(browser, document, tmp_path, viewport={"width": 390, "height": 800}, color_scheme=scheme)
    assert found.page.evaluate("document.documentElement.scrollWidth") <= 390
    background = found.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background))) < 200) == (scheme == "dark")
    assert found.complaints == []
    found.page.context.close()
