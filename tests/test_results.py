"""docs/RESULTS.md is what the extract says, and the extract is what runs say."""

from pathlib import Path

import agreements
import cells
import evidence
import extract
import more_samples
import numpy as np
import pytest
import results
from agreements import Problem
from planted import manifest, record, sample

from nad.analysis.outcomes import Sheet
from nad.neurons.agreement import consensus_curve
from nad.prefixes import prefix_curve
from nad.runs.records import MemoryRun, ProblemRecord
from nad.selection import parse_selector
from nad.stopping import Settled, parse_prune, parse_stop

EXTRACT = Path(extract.__file__).parent / "extract"


def made() -> ProblemRecord:
    """Six answers of 20 to 45 tokens that part one after the other, two of them the same; neurons at random."""
    generator = np.random.default_rng(0)
    samples = []
    for i in range(6):
        length = 20 + 5 * min(i, 4) + 5
        tokens = [*range(1, 6 + 3 * min(i, 4)), *(100 * (min(i, 4) + 1) + t for t in range(length))][: length - 1]
        ids = np.random.default_rng(min(i, 4)).permutation(400)[:150]
        neurons = {int(v): int(generator.integers(0, length - 1)) for v in ids}
        samples.append(sample(i, [*tokens, 0], neurons, i % 2 == 0, str(i % 3), 1.0 + i))
    return record("p", samples)


RECORD = made()
RUN = MemoryRun(manifest(n=6, layers=4, neurons=400), [RECORD])


@pytest.fixture(scope="module")
def problem(tmp_path_factory: pytest.TempPathFactory) -> evidence.Problem:
    folder = tmp_path_factory.mktemp("extract")
    extract.write(RUN, "planted", folder)
    (found,) = evidence.load("planted", folder)
    return found


def test_every_table_of_the_page_is_what_the_extract_gives() -> None:
    page = results.PAGE.read_text()
    assert set(results.TABLES) == set(results.named(page))
    assert results.rebuilt(page, cells.read()) == page


def test_the_figures_numbers_are_what_the_extract_gives(tmp_path: Path) -> None:
    import curves

    drawn = curves.draw(cells.read(), tmp_path)
    for file in drawn:
        if file.suffix == ".csv":
            assert file.read_text() == (results.PAGE.parent / "images" / file.name).read_text()


def test_the_extract_is_compact() -> None:
    assert sum(file.stat().st_size for file in EXTRACT.iterdir()) < 10e6


def test_the_extract_keeps_what_the_record_says(problem: evidence.Problem) -> None:
    tokens = [s.completion.tokens for s in RECORD.samples]
    curve = prefix_curve(tokens)
    for place, t in enumerate(extract.POSITIONS):
        at = min(t, len(curve.computed))
        assert problem.computed(t) == curve.computed[at - 1]
        assert problem.distinct(t) == curve.distinct[at - 1]
        sets = [s.completion.activations for s in RECORD.samples]
        (expected,) = consensus_curve([s for s in sets if s is not None], [at])
        np.testing.assert_allclose(problem.similarity("neurons", place), expected, atol=1e-3)
    assert problem.correct.tolist() == [1, 0, 1, 0, 1, 0]
    assert problem.length.tolist() == [len(t) for t in tokens]
    np.testing.assert_allclose(problem.signals["confidence"][0], 1.0 + np.arange(6), rtol=1e-3)


def test_runs_of_many_samples_keep_the_two_main_agreements_at_the_end(
    problem: evidence.Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extract, "MOST", 5)
    extract.write(RUN, "gsm8k-64", tmp_path)
    (many,) = evidence.load("gsm8k-64", tmp_path)
    assert set(many.agreement) == {"neurons", "tokens"}
    for name, matrices in many.agreement.items():
        np.testing.assert_array_equal(matrices, problem.agreement[name][-1:])
    for place in range(len(extract.POSITIONS)):
        few = evidence.medoid()(problem, place) / problem.n
        np.testing.assert_allclose(evidence.medoid()(many, place), few, atol=1e-3)
    for spec in ("auto", "auto:window=1"):
        assert isinstance(rule := parse_stop(spec), Settled)
        assert evidence.follow(many, evidence.medoid(), rule) == evidence.follow(problem, evidence.medoid(), rule)
    monkeypatch.setattr(cells, "FOLDER", tmp_path)
    header, _, *rows = more_samples.numbers({"gsm8k": [problem]}).splitlines()
    assert header == "| n | gsm8k | gsm8k, 1 problems |"
    assert [row.split(" | ")[0] for row in rows] == ["| 2", "| 4"]
    assert all(row.split(" | ")[1] == row.split(" | ")[2].removesuffix(" |") for row in rows)


def test_parting_by_hand() -> None:
    made_of = Problem.of([s.completion for s in RECORD.samples], 4, 400)
    (found,) = agreements.AT_THE_END["parted"](made_of, [30])
    for i, j in ((0, 1), (2, 4), (3, 0), (4, 5)):
        a, b = (RECORD.samples[k].completion for k in (i, j))
        begin = next((t for t, (x, y) in enumerate(zip(a.tokens, b.tokens, strict=False)) if x != y), len(a.tokens))
        assert made_of.shared[i, j] == begin
        later = [
            {int(v) for v, t in zip(c.activations.neuron, c.activations.first_token, strict=True) if begin <= t < 30}
            for c in (a, b)
            if c.activations is not None
        ]
        expected = len(later[0] & later[1]) / len(later[0] | later[1]) if later[0] | later[1] else 1.0
        assert found[i, j] == pytest.approx(expected)


def test_rare_neurons_weigh_more() -> None:
    active = np.array([[1, 1, 0], [1, 1, 1], [1, 0, 0], [1, 0, 1]], dtype=bool)
    similarity = agreements._weighted_by_share(active)
    log = np.log(2)
    assert similarity[0, 1] == pytest.approx(log / (2 * log))
    assert similarity[0, 2] == 0
    assert similarity[2, 2] == 1  # nothing but what all have


@pytest.mark.parametrize("spec", ["6:16,3:24,2:32", "auto", "auto:window=1,distinct=0.9"])
def test_schedules_are_followed_as_in_the_library(problem: evidence.Problem, spec: str) -> None:
    rule = parse_stop(spec)
    assert isinstance(rule, Settled | type(parse_prune("2:1")))
    outcome = Sheet(RECORD, RUN.manifest, {spec: rule}).outcomes({"m": parse_selector("medoid")}, [spec])["m", spec]
    found = evidence.follow(problem, evidence.medoid(), rule)
    assert found.correct == outcome.value
    assert found.share == pytest.approx(outcome.computed / problem.computed(extract.POSITIONS[-1]))


@pytest.mark.parametrize(
    ("spec", "method"),
    [("medoid", evidence.medoid()), ("knn", evidence.knn()), ("medoid@tokens", evidence.medoid("tokens"))],
)
def test_choices_are_the_librarys(problem: evidence.Problem, spec: str, method: evidence.Method) -> None:
    stops = {"16": parse_stop("16"), "32": parse_stop("32"), "none": parse_stop("none")}
    outcomes = Sheet(RECORD, RUN.manifest, stops).outcomes({spec: parse_selector(spec)}, stops)
    for label, place in (("16", 1), ("32", 3), ("none", evidence.END)):
        assert outcomes[spec, label].index == evidence.best(method(problem, place))
