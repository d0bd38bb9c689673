"""What the tests of the sandbox share: short ways to run a program, and where programs of others may lie."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from nad.grading import sandbox
from nad.grading.sandbox import Limits, Tests, run_inputs, run_tests

needs_bwrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap (apt-get install bubblewrap)")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
DOUBLES = Tests("assert f(3) == 6\nassert f([1]) == [1, 1]", ("f",))
QUICK = Limits(wall_s=2, cpu_s=1)


def passes(program: str, limits: Limits = Limits()) -> bool | None:
    return run_tests(program, DOUBLES, limits).passed


def printed(program: str, limits: Limits = Limits(), text: str = "") -> str:
    """What a script prints; its failure is the test's."""
    outputs, verdict = run_inputs(program, [text], limits)
    assert outputs is not None, verdict
    return outputs[0].strip()


def left_running(name: str, wait_s: float = 3) -> int:
    """How many processes of this name run, after they have had time to end."""
    deadline = time.monotonic() + wait_s
    while (found := _named(name)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def _named(name: str) -> int:
    count = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            before, _, after = path.read_text().rpartition(") ")
            count += before.partition("(")[2] == name and after[0] not in "ZX"
    return count


def others_programs(name: str) -> Path:
    """A file of programs that do not belong to this repository: in $NAD_ATTACK, or in shared/attack beside it."""
    beside = Path(__file__).parents[3] / "shared" / "attack"
    path = Path(os.environ.get("NAD_ATTACK") or beside) / name
    if not path.is_file():
        pytest.skip(f"needs {name} in $NAD_ATTACK or in {beside}")
    return path


# Into the control group while still root; then to be somebody else.
_ENTER = """echo 0 >"$0" && exec /usr/bin/python3 -c '
import os, sys
user, code = int(sys.argv[1]), sys.argv[2]
os.setgroups([])
os.setresgid(user, user, user)
os.setresuid(user, user, user)
exec(code)' "$@" """


def as_somebody(code: str, user: int = 60001, group: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run code as an unprivileged user, with the sandbox's modules and the system's Python, in a control group."""
    if not Path("/usr/bin/python3").exists():
        pytest.skip("needs an interpreter that everybody may run")
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # pytest's own are closed to others
        os.chmod(folder, 0o755)
        source, package = Path(sandbox.__file__).parents[1], Path(folder) / "nad"
        shutil.copytree(source / "grading", package / "grading", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(source / "errors.py", package)
        (package / "__init__.py").touch()
        return subprocess.run(
            ["/bin/sh", "-c", _ENTER, str(group or "/dev/null"), str(user), code],
            cwd="/",
            env={"PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
        )
