"""The plugin of the documentation, installed as a user would and named on the command line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("setuptools", reason="builds a package: pip install setuptools")

PLUGIN = Path(__file__).parents[1] / "examples" / "plugin"
PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "write-a-selector.md"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process that has the plugin beside nad."""
    place = tmp_path_factory.mktemp("plugin")
    copy = tmp_path_factory.mktemp("source")
    for file in PLUGIN.iterdir():
        if file.is_file():
            (copy / file.name).write_bytes(file.read_bytes())
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, "--target", str(place), str(copy)], check=True)
    path = os.pathsep.join(filter(None, (str(place), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path}


def run(code: str, environment: dict[str, str]) -> str:
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_listed_with_its_parameter(installed: dict[str, str]) -> None:
    out = run("from nad.cli.main import main; main(['selectors'])", installed)
    assert "median-length" in out
    assert "quantile=0.5" in out


def test_it_chooses_by_name(installed: dict[str, str]) -> None:
    code = (
        "from nad.selection import Candidates, parse_selector\n"
        "from nad.types import Completion\n"
        "found = [Completion(i, (1,) * n, '', 'stop') for i, n in enumerate((3, 9, 5))]\n"
        "for spec in ('median-length', 'median-length:quantile=1'):\n"
        "    print(parse_selector(spec).choose(Candidates.of(found, full=True)).index)\n"
    )
    assert run(code, installed).split() == ["2", "1"]


def test_cut_answers_are_refused_before_sampling(installed: dict[str, str]) -> None:
    code = (
        "import sys; from nad.cli.main import main\n"
        "sys.exit(main(['generate', 'x', '--selector', 'median-length']) != 2)"
    )
    run(code, installed)


def test_the_page_shows_the_class_of_the_package() -> None:
    source = (PLUGIN / "nad_median.py").read_text()
    shown = PAGE.read_text().split("```python\n")[1].split("```")[0]
    for line in filter(str.strip, shown.splitlines()):
        assert line in source
