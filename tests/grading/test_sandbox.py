"""Programs in the sandbox: what the tests of a problem say of them, and what happens where there is no sandbox."""

import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from programs import DOUBLES, QUICK, as_somebody, needs_bwrap, needs_root, passes, printed

from nad.errors import NadError
from nad.grading import sandbox
from nad.grading.sandbox import Limits, Tests, check_inputs, check_sandbox, run_inputs, run_tests

pytestmark = needs_bwrap


def test_a_right_program_passes_and_a_wrong_one_does_not():
    assert passes("def f(x): return x * 2") is True
    assert passes("def f(x): return x + x if x == 3 else x") is False


@pytest.mark.parametrize(
    "program",
    [
        "",
        "def g(x): return 1",
        "def f(x):",
        "def f(x): raise ValueError",
        "1 / 0",
        "import nad\ndef f(x): return x * 2",
    ],
    ids=["empty", "other name", "no Python", "raises", "fails to load", "imports what is not there"],
)
def test_programs_that_do_not_work_do_not_pass(program):
    assert passes(program) is False


def test_runs_see_nothing_of_each_other():
    assert printed("open('/tmp/left', 'w').write('x')\nprint('done')") == "done"
    assert printed("import os\nprint(os.listdir('/tmp'))") == "[]"


def test_each_input_is_a_fresh_run_of_a_script():
    double = "import sys\nif __name__ == '__main__':\n    print(int(sys.stdin.readline()) * 2)"
    assert run_inputs(double, ["3\n", "4"])[0] == ["6\n", "8\n"]
    outputs, verdict = run_inputs(double, ["3", "x"])
    assert outputs is None and verdict.passed is False and "input 1" in verdict.reason


def test_tests_that_cannot_run_leave_the_program_ungraded():
    assert run_tests("def f(x): return x", Tests("assert f(", ("f",))).passed is None
    own = "class A: pass\n"
    assert run_tests("def f(a): return 1", Tests(own + "assert f(A()) == 1", ("f",))).passed is None
    caught = own + "try:\n    f(A())\nexcept BaseException:\n    pass"
    assert run_tests("def f(a): return 1", Tests(caught, ("f",))).passed is None
    assert run_tests("def f(a): return 1", Tests("assert f(1) == 1", ("f",), before="1 / 0")).passed is None


def test_outputs_are_looked_at_as_they_come_and_the_first_wrong_one_ends_the_run():
    seen: list[tuple[int, str]] = []

    def accepts(number: int, output: str) -> bool:
        seen.append((number, output))
        return output == "1\n"

    verdict = check_inputs("print(input())", ["1", "2", "3"], accepts)
    assert verdict.passed is False and "input 1" in verdict.reason
    assert seen == [(0, "1\n"), (1, "2\n")]
    assert check_inputs("print(1)", ["", ""], accepts).passed is True
    assert check_inputs("print(1)\n1 / 0", ["", ""], accepts).passed is False


def test_outputs_of_all_inputs_together_are_bounded():
    small = Limits(output=1000)
    assert run_inputs("print('x' * 400)", ["", ""], small)[0] == ["x" * 400 + "\n"] * 2
    outputs, verdict = run_inputs("print('x' * 400)", ["", "", ""], small)
    assert outputs is None and "all inputs together" in verdict.reason


def test_without_bubblewrap_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: None)
    with pytest.raises(NadError, match=r"install bubblewrap.*--unsafe-code-execution"):
        check_sandbox(unsafe=False)
    check_sandbox(unsafe=True)


def test_a_sandbox_that_does_not_start_grades_nothing_and_says_why(monkeypatch):
    monkeypatch.setattr(sandbox, "_bubblewrap", lambda *options: ["bwrap", "--no-such-option"])
    assert run_tests("def f(x): return x * 2", DOUBLES).passed is None
    with pytest.raises(NadError, match="no-such-option"):
        check_sandbox(unsafe=False)


def test_unsafe_execution_still_judges():
    assert run_tests("def f(x): return x * 2", DOUBLES, unsafe=True).passed is True
    assert run_tests("import os\nos._exit(0)", DOUBLES, unsafe=True).passed is False
    assert run_tests("while True: pass", DOUBLES, QUICK, unsafe=True).passed is False


def test_unsafe_execution_leaves_no_process_of_a_program_that_does_not_load(tmp_path):
    """Without a sandbox nothing else would end it. It tells its number through a file."""
    note = tmp_path / "pid"
    stays = (
        f"import os, time\nif os.fork() == 0:\n    os.setsid()\n    open({str(note)!r}, 'w').write(str(os.getpid()))\n"
        "    time.sleep(300)\n"
        f"while not os.path.exists({str(note)!r}) or not open({str(note)!r}).read():\n    time.sleep(0.01)\n1 / 0"
    )
    assert run_tests(stays, DOUBLES, unsafe=True).passed is False
    pid = int(note.read_text())
    state = Path(f"/proc/{pid}/stat")
    assert not state.exists()


@needs_root
def test_it_also_works_for_an_unprivileged_user():
    bomb = (
        "import os\ndef f(x):\n    try:\n        while os.fork(): pass\n"
        "    except OSError: return 'refused'\n    os._exit(0)"
    )
    done = as_somebody(
        f"from nad.grading.sandbox import *\n"
        f"assert run_tests('def f(x): return x', Tests('assert f(1) == 1', ('f',))).passed\n"
        f"assert run_inputs('print(input())', ['1', '2'])[0] == ['1\\n', '2\\n']\n"
        f"v = run_tests({bomb!r}, Tests('assert f(1) == \"refused\"', ('f',)))\nassert v.passed, v"
    )
    assert done.returncode == 0, done.stderr


def test_ten_programs_a_second_on_two_cores():
    """In CPU time, so that other work on the machine does not count: at most 2 / 10 of a second for each."""

    def cpu_s() -> float:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(u.ru_utime + u.ru_stime for u in used)

    started = cpu_s()
    with ThreadPoolExecutor(2) as pool:
        assert all(pool.map(lambda i: passes("def f(x): return x * 2"), range(60)))
    assert (cpu_s() - started) / 60 <= 0.2
