"""nad tables, figures and report on runs in a store."""

import json
import subprocess
import sys

import pytest
from hand import hand_run

from nad.cli.main import main
from nad.runs.store import RunStore

pytest.importorskip("matplotlib", reason="figures need matplotlib: pip install 'nad[report]'")


@pytest.fixture
def stored(tmp_path):
    run = hand_run()
    store = RunStore.create(str(tmp_path / "run"), run.manifest, [p.problem for p in run])
    for index, problem in enumerate(run):
        store.write(index, problem)
    return str(tmp_path / "run")


def test_tables_are_printed(stored, capsys):
    assert main(["tables", stored]) == 0
    out, err = capsys.readouterr()
    assert "| planted | NAD-kNN | 66.7 [0.0, 100.0] |" in out
    tasks = "humaneval, mbpp, mbpp_sanitized, lcb_v5"
    assert err == f"not shown: Table 3: no run of a code task ({tasks}); record one with `nad eval --task`\n"


def test_tables_are_written(stored, tmp_path, capsys):
    assert main(["tables", stored, "--out", str(tmp_path / "out")]) == 0
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == [f"table{n}.{kind}" for n in (1, 2) for kind in ("csv", "json", "md", "tex")]
    cells = json.loads((tmp_path / "out" / "table2.json").read_text())["cells"]
    assert next(c for c in cells if c["method"] == "NAD-kNN")["tokens"] == 480
    assert len(capsys.readouterr().out.splitlines()) == 8


def test_figures_are_written(stored, tmp_path, capsys):
    assert main(["figures", stored, "--out", str(tmp_path / "out")]) == 0
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert len(names) == 8 * 3 and "fig4c_planted_planted.svg" in names
    assert len(capsys.readouterr().out.splitlines()) == 24


def test_report_is_written(stored, tmp_path, capsys):
    assert main(["report", stored, "--out", str(tmp_path)]) == 0
    assert "Explorer" in (tmp_path / "report.html").read_text()
    assert capsys.readouterr().out == f"{tmp_path / 'report.html'}\n"


def test_no_run_is_one_line_and_code_2(tmp_path, capsys):
    for command in ("tables", "figures", "report"):
        assert main([command, str(tmp_path / "nothing")]) == 2
        assert capsys.readouterr().err.count("\n") == 1
        assert main([command]) == 2
        capsys.readouterr()


def test_nothing_heavy_is_loaded(stored):
    """No engine and no model: torch stays out even of the tables' own process."""
    code = f"import sys; from nad.cli.main import main; main(['tables', {stored!r}]); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.model
def test_a_real_run_of_the_default_model(tmp_path, capsys):
    run = str(tmp_path / "run")
    options = ["--task", "arithmetic", "--limit", "2", "-n", "4", "--max-tokens", "48", "--out", run]
    assert main(["eval", *options]) == 0
    for command in ("tables", "figures", "report"):
        out = tmp_path / command
        assert main([command, run, "--out", str(out)]) == 0
        assert any(out.iterdir())
    document = (tmp_path / "report" / "report.html").read_text()
    assert "smollm2" in document.lower() and "arithmetic" in document and "planted data" not in document
