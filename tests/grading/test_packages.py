"""Packages that programs may import: in the sandbox by name, and nothing beside them."""

import shutil

import pytest

from nad.errors import NadError
from nad.grading.packages import package_binds, package_environment
from nad.grading.sandbox import Tests, run_inputs, run_tests

needs_bubblewrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap")
DOUBLES = Tests("assert f(3) == 6", ("f",))
NUMPY = "import numpy as np\ndef f(x): return int(np.array([x, x]).sum())"


@needs_bubblewrap
def test_a_package_is_there_for_programs_of_both_kinds_and_only_when_named():
    assert run_tests(NUMPY, DOUBLES, packages=("numpy",)).passed is True
    assert run_tests(NUMPY, DOUBLES).passed is False
    script = "import numpy as np\nprint(np.arange(4) @ np.arange(4))"
    assert run_inputs(script, ["", ""], packages=("numpy",))[0] == ["14\n", "14\n"]
    assert run_inputs(script, [""])[0] is None


@needs_bubblewrap
def test_it_works_with_its_own_threads_and_within_the_limits():
    solve = "import numpy as np\ndef f(x): return round(float(np.linalg.inv(np.eye(400) / x)[0, 0])) * 2"
    assert run_tests(solve, DOUBLES, packages=("numpy",)).passed is True


@needs_bubblewrap
@pytest.mark.parametrize(
    ("result", "passed"),
    [("np.int64(6)", True), ("np.array([x, x]).sum()", True), ("np.float64(6)", True), ("np.int64(7)", False)],
)
def test_a_number_of_its_own_equals_what_it_equals(result: str, passed: bool):
    assert run_tests(f"import numpy as np\ndef f(x): return {result}", DOUBLES, packages=("numpy",)).passed is passed


@needs_bubblewrap
@pytest.mark.parametrize("other", ["scipy", "torch", "nad", "pytest", "pip"])
def test_nothing_beside_it_is_there(other: str):
    assert run_tests(f"import {other}\ndef f(x): return 6", DOUBLES, packages=("numpy",)).passed is False


@needs_bubblewrap
def test_it_cannot_be_changed():
    write = "import numpy\nopen(numpy.__file__, 'a').write('x')\ndef f(x): return 6"
    assert run_tests(write, DOUBLES, packages=("numpy",)).passed is False


def test_its_numbers_compare_as_numbers():
    """They are not of Python's own types: the plain number in them decides."""
    numbers = "import numpy as np\ndef f(x): return np.int64(x)\ndef g(x): return np.array([x, x])"
    tests = (
        "assert f(3) == 3 == f(3) == 3.0 and f(3) + 1 == 4 and 1.5 - f(3) == -1.5 and abs(f(3) - 3.1) < 0.2\n"
        "assert f(3) < 3.5 and not 3.5 <= f(3) and f(3) != 4 and {3: 1}[f(3)] == 1\n"
        "assert f(7) // 2 == 3 and 7 % f(4) == 3\n"
        "assert list(g(3)) == [3, 3] and g(3).tolist() == [3, 3] and len(g(3)) == 2 and g(3)[1] == 3 and 3 in g(3)"
    )
    verdict = run_tests(numbers, Tests(tests, ("f", "g")), packages=("numpy",))
    assert verdict.passed is True, verdict


def test_without_a_sandbox_it_is_found_where_it_lies():
    assert run_tests(NUMPY, DOUBLES, unsafe=True, packages=("numpy",)).passed is True


def test_one_that_is_not_installed_is_named():
    with pytest.raises(NadError, match="may import nowhere_at_all, and it is not here: pip install nowhere_at_all"):
        package_binds(("nowhere_at_all",))


def test_no_packages_change_nothing():
    assert package_binds(()) == []
    assert package_environment((), unsafe=False) == package_environment((), unsafe=True) == {}
