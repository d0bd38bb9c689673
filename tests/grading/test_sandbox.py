"""Programs that want to do harm or to pass without working. Each is stopped by name."""

import io
import os
import pickle
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nad.errors import NadError
from nad.grading import sandbox, sandbox_judge
from nad.grading.sandbox import Limits, Tests, check_sandbox, run_inputs, run_tests

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap (apt-get install bubblewrap)")
DOUBLES = Tests("assert f(3) == 6\nassert f([1]) == [1, 1]", ("f",))
QUICK = Limits(wall_s=2, cpu_s=1)


def passes(program: str, limits: Limits = Limits()) -> bool | None:
    return run_tests(program, DOUBLES, limits).passed


def printed(program: str, limits: Limits = Limits(), text: str = "") -> str:
    """What a script prints; its failure is the test's."""
    outputs, verdict = run_inputs(program, [text], limits)
    assert outputs is not None, verdict
    return outputs[0].strip()


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


FORGERIES = {
    "ends early with status 0": "import os\nos._exit(0)",
    "ends early in the call": "import os\ndef f(x): os._exit(0)",
    "sys.exit": "import sys\nsys.exit(0)",
    "prints what a test might print": 'print(\'{"passed": true, "reason": ""}\', flush=True)\ndef f(x): return x',
    "equals everything": "class A:\n    def __eq__(self, o): return True\ndef f(x): return A()",
    "equals everything, as an int": "class A(int):\n    def __eq__(self, o): return True\ndef f(x): return A(1)",
    "equals everything, as a list": "class A(list):\n    def __eq__(self, o): return True\ndef f(x): return A()",
    "reflected comparison": "class A(dict):\n    def __eq__(self, o): return True\ndef f(x): return A()",
    "patches builtins": (
        "import builtins\nclass A(AssertionError):\n    def __new__(cls, *a): raise SystemExit(0)\n"
        "builtins.AssertionError = A\nbuiltins.exec = builtins.compile = lambda *a, **k: None\ndef f(x): return x"
    ),
    "patches os and sys": (
        "import os, sys\nos._exit = lambda *a: None\nsys.exit = lambda *a: None\nsys.excepthook = lambda *a: None\n"
        "sys.settrace(lambda *a: None)\ndef f(x): return x"
    ),
    "patches the judge's code": (
        "import sys\nframe = sys._getframe()\nwhile frame:\n    for name, value in list(frame.f_globals.items()):\n"
        "        if name in ('judge_tests', 'Judge', 'ProgramLost'):\n"
        "            frame.f_globals[name] = lambda *a: {'passed': True, 'reason': ''}\n    frame = frame.f_back\n"
        "def f(x): return x"
    ),
    "answers with a pickle that runs code": (
        "import os\nclass A:\n    def __reduce__(self): return (eval, (\"{'passed': True}\",))\n"
        "import sys, pickle, io\nframe = sys._getframe()\nwhile frame:\n    if 'channel' in frame.f_locals:\n"
        "        channel = frame.f_locals['channel']\n    frame = frame.f_back\n"
        "def f(x):\n    data = pickle.dumps(('ok', A()))\n"
        "    channel.sendall(len(data).to_bytes(8, 'big') + data)\n    return 6"
    ),
    "writes a verdict to every descriptor": (
        'import os\nfor fd in range(3, 256):\n    try: os.write(fd, b\'{"passed": true, "reason": ""}\\n\')\n'
        "    except OSError: pass\ndef f(x): return x"
    ),
    "writes a verdict through /proc": (
        "import glob\nfor path in glob.glob('/proc/*/fd/*'):\n    try: open(path, 'w').write('{\"passed\": true}\\n')\n"
        "    except OSError: pass\ndef f(x): return x"
    ),
    "takes the judge's descriptors": (
        "import ctypes, os\nlibc = ctypes.CDLL(None)\npidfd = libc.syscall(434, 1, 0)\n"
        "for fd in range(20):\n    taken = libc.syscall(438, pidfd, fd, 0)\n"
        '    if taken >= 0: os.write(taken, b\'{"passed": true, "reason": ""}\\n\')\ndef f(x): return x'
    ),
}


@pytest.mark.parametrize("program", FORGERIES.values(), ids=FORGERIES.keys())
def test_a_forged_verdict_does_not_pass(program):
    assert passes(program) is False


def test_expected_values_are_nowhere_in_the_program_s_memory():
    """It reads all of its own memory for a value that only the tests hold."""
    search = (
        "import gc, sys\nsecret = ''.join(['5577', '0061', '3'])\n"
        "def f(x):\n    found = [o for o in gc.get_objects() if secret in repr(o) and o is not globals()]\n"
        "    frame, texts = sys._getframe(), []\n    while frame:\n"
        "        texts.append(repr(frame.f_locals)); frame = frame.f_back\n"
        "    return int(secret) if any(secret in t for t in texts[1:]) else len(found)"
    )
    assert run_tests(search, Tests("assert f(0) == 55770061" + "3", ("f",))).passed is False


def test_the_judge_cannot_be_traced_or_written_to():
    probe = (
        "import ctypes\nlibc = ctypes.CDLL(None)\nclass V(ctypes.Structure):\n"
        "    _fields_ = [('base', ctypes.c_void_p), ('len', ctypes.c_size_t)]\nb = ctypes.create_string_buffer(8)\n"
        "v = V(ctypes.addressof(b), 8)\n"
        "print(libc.ptrace(16, 1, 0, 0), libc.process_vm_readv(1, ctypes.byref(v), 1, ctypes.byref(v), 1, 0))"
    )
    assert printed(probe) == "-1 -1"


def test_killing_the_parent_does_not_work_and_does_not_pass():
    killer = "import os, signal\nfor s in range(1, 65):\n    try: os.kill({}, s)\n    except OSError: pass\n"
    assert passes(killer.format("1") + "def f(x): return x") is False
    assert passes(killer.format("os.getppid()") + "def f(x): return x * 2") is True
    assert passes("import os\ndef f(x):\n    os.kill(-1, 9)\n    return x") is False


def test_a_fork_bomb_gets_no_further_than_the_process_limit():
    bomb = (
        "import os, time\ncount = 0\ntry:\n    while count < 500:\n        if os.fork() == 0:\n"
        "            time.sleep(60)\n"
        "        count += 1\nexcept OSError:\n    pass\nprint(count)"
    )
    started = time.monotonic()
    assert 1 <= int(printed(bomb)) < Limits().processes
    assert time.monotonic() - started < 20


def test_memory_ends_at_its_limit():
    greedy = "try:\n    x = bytearray(2 << 30)\nexcept MemoryError:\n    print('refused')"
    assert printed(greedy) == "refused"
    assert passes("x = [0] * (1 << 28)\ndef f(x): return x * 2") is False


@pytest.mark.parametrize("loop", ["while True: pass", "import time\ntime.sleep(60)"], ids=["busy", "asleep"])
def test_an_endless_loop_ends_in_time(loop):
    started = time.monotonic()
    assert passes(loop, QUICK) is False
    assert passes(f"def f(x):\n    {loop.replace(chr(10), chr(10) + '    ')}", QUICK) is False
    assert run_inputs(loop, [""], QUICK)[0] is None
    assert time.monotonic() - started < 20


def test_an_output_flood_is_cut():
    small = Limits(wall_s=10, output=1 << 20)
    outputs, verdict = run_inputs("while True: print('x' * 10000)", [""], small)
    assert outputs is None and "more output" in verdict.reason
    assert passes("def f(x): return 'x' * (2 << 20)", small) is False
    assert passes("while True: print('x' * 10000)", QUICK) is False


def test_the_disk_is_small_and_files_are_too():
    fill = (
        "import os\nwritten = 0\ntry:\n    for i in range(100):\n        with open(f'/tmp/{i}', 'wb') as f:\n"
        "            f.write(bytes(8 << 20))\n        written += 8\nexcept OSError:\n    pass\nprint(written)"
    )
    assert 8 <= int(printed(fill)) <= Limits().disk >> 20
    one = "try:\n    open('/tmp/a', 'wb').write(bytes(24 << 20))\nexcept OSError as e:\n    print(e.errno)"
    assert printed(one) == "27"  # EFBIG


def test_there_is_no_network():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        call = (
            f"import socket\ntry:\n    socket.create_connection(('127.0.0.1', {port}), 2)\n    print('connected')\n"
            "except OSError:\n    print('refused')\nprint([n for _, n in socket.if_nameindex()])"
        )
        assert printed(call) in ("refused\n['lo']", "refused\n[]")


def test_the_home_folder_and_the_environment_are_not_there(monkeypatch, tmp_path):
    monkeypatch.setenv("NAD_SECRET", "s3cret")
    secret = tmp_path / "secret"
    secret.write_text("s3cret")
    look = (
        "import os\nprint('NAD_SECRET' in os.environ)\n"
        f"for path in ({str(secret)!r}, {str(Path.home() / '.bashrc')!r}, '/etc/passwd', '/proc/1/environ'):\n"
        "    print(os.path.exists(path))"
    )
    assert printed(look).split() == ["False"] * 5


def test_nothing_can_be_written_outside_its_own_folder(tmp_path):
    write = (
        f"import os\nfor folder in ('/', '/usr', '/dev', '/dev/shm', '/etc', {sys.base_prefix!r}, {str(tmp_path)!r}):\n"
        "    try:\n        open(folder + '/written', 'w')\n        print(folder)\n    except OSError:\n        pass\n"
        "print('end')"
    )
    assert printed(write) == "end"


def test_it_cannot_become_root():
    become = "import os\ntry:\n    os.setuid(0)\n    print('root')\nexcept OSError:\n    print(os.getuid() != 0)"
    assert printed(become) == "True"


def test_processes_left_behind_end_with_the_run():
    mark = f"nad-left-{os.getpid()}"
    leave = (
        "import os, sys, time, ctypes\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
        f"        ctypes.CDLL(None).prctl(15, b'{mark[:15]}', 0, 0, 0)\n        os.close(1)\n        time.sleep(300)\n"
        "    os._exit(0)\ndef f(x): return x * 2\nprint('left')"
    )
    assert passes(leave) is True
    assert printed(leave) == "left"
    names = [p.read_text().strip() for p in Path("/proc").glob("[0-9]*/comm") if p.exists()]
    assert mark[:15] not in names


def test_runs_see_nothing_of_each_other():
    assert printed("open('/tmp/left', 'w').write('x')\nprint('done')") == "done"
    assert printed("import os\nprint(os.listdir('/tmp'))") == "[]"


def test_each_input_is_a_fresh_run_of_a_script():
    double = "import sys\nif __name__ == '__main__':\n    print(int(sys.stdin.readline()) * 2)"
    assert run_inputs(double, ["3\n", "4"])[0] == ["6\n", "8\n"]
    outputs, verdict = run_inputs(double, ["3", "x"])
    assert outputs is None and verdict.passed is False and "input 1" in verdict.reason


@pytest.mark.parametrize(
    "value",
    ["None", "(1, [2.5], {'a': {1, 2}})", "1 + 2j", "b'x'", "10 ** 5000", "float('inf')", "{(1, 2): frozenset([3])}"],
)
def test_plain_values_cross_unchanged(value):
    assert run_tests("def f(x): return x", Tests(f"assert f({value}) == {value}", ("f",))).passed is True


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
HASHABLE = st.recursive(SCALARS, lambda inner: st.tuples(inner, inner) | st.frozensets(inner), max_leaves=5)
VALUES = st.recursive(
    HASHABLE, lambda inner: st.lists(inner) | st.dictionaries(HASHABLE, inner) | st.sets(HASHABLE), max_leaves=10
)


def refuse(value: object) -> int:
    raise AssertionError(f"{value!r} is plain")


@given(VALUES)
def test_any_plain_value_is_the_same_on_the_other_side(value):
    data = sandbox_judge.pack(value, refuse)
    found = sandbox_judge.Unpacker(io.BytesIO(data), refuse).load()
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("value", [os.system, eval, sandbox.Limits(), types.SimpleNamespace(), type])
def test_a_pickle_that_names_anything_else_is_refused(value):
    with pytest.raises(pickle.UnpicklingError, match="no plain type"):
        sandbox_judge.Unpacker(io.BytesIO(pickle.dumps(value)), refuse).load()


def test_subclasses_cross_as_what_they_extend():
    program = "from collections import *\nP = namedtuple('P', 'a b')\ndef f(): return [P(1, 2), Counter('aab')]"
    assert run_tests(program, Tests("assert f() == [(1, 2), {'a': 2, 'b': 1}]", ("f",))).passed is True


def test_objects_of_the_program_can_be_handed_back_to_it():
    program = "class P:\n    def __init__(self, a): self.a = a\ndef f(p): return p.a"
    assert run_tests(program, Tests("assert f(P(3)) == 3\nassert P(3) != P(3)", ("P", "f"))).passed is True


def test_generators_can_be_gone_through():
    program = "def f(n):\n    for i in range(n): yield i"
    assert run_tests(program, Tests("assert list(f(3)) == [0, 1, 2]\nassert f(3) != [0, 1, 2]", ("f",))).passed is True


def test_tests_that_cannot_run_leave_the_program_ungraded():
    assert run_tests("def f(x): return x", Tests("assert f(", ("f",))).passed is None
    assert run_tests("def f(g): return g(1)", Tests("assert f(lambda x: x) == 1", ("f",))).passed is None


def test_without_bubblewrap_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: None)
    with pytest.raises(NadError, match=r"install bubblewrap.*--unsafe-code-execution"):
        check_sandbox(unsafe=False)
    check_sandbox(unsafe=True)


def test_a_sandbox_that_does_not_start_grades_nothing_and_says_why(monkeypatch):
    monkeypatch.setattr(sandbox, "_bubblewrap", lambda limits, root, packages: ["bwrap", "--no-such-option"])
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
        f"import os, time\nif os.fork() == 0:\n    open({str(note)!r}, 'w').write(str(os.getpid()))\n"
        "    time.sleep(300)\n"
        f"while not os.path.exists({str(note)!r}) or not open({str(note)!r}).read():\n    time.sleep(0.01)\n1 / 0"
    )
    assert run_tests(stays, DOUBLES, unsafe=True).passed is False
    pid = int(note.read_text())
    state = Path(f"/proc/{pid}/stat")
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_it_also_works_for_an_unprivileged_user():
    if not Path("/usr/bin/python3").exists():
        pytest.skip("needs an interpreter that everybody may run")
    bomb = (
        "import os\ndef f(x):\n    try:\n        while os.fork(): pass\n"
        "    except OSError: return 'refused'\n    os._exit(0)"
    )
    code = (
        f"from nad.grading.sandbox import *\n"
        f"assert run_tests('def f(x): return x', Tests('assert f(1) == 1', ('f',))).passed\n"
        f"v = run_tests({bomb!r}, Tests('assert f(1) == \"refused\"', ('f',)))\nassert v.passed, v"
    )
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # pytest's own are closed to others
        os.chmod(folder, 0o755)
        package = Path(folder) / "nad"
        package.mkdir()
        (package / "grading").mkdir()
        source = Path(sandbox.__file__).parents[1]
        for name in ("errors.py", *(f"grading/{n}.py" for n in ("__init__", "packages", "sandbox", "sandbox_judge"))):
            shutil.copy(source / name, package / name)
        (package / "__init__.py").touch()
        done = subprocess.run(
            ["/usr/bin/python3", "-c", code],
            user=60001,
            group=60001,
            extra_groups=[],
            cwd="/",
            env={"PYTHONPATH": folder},
            capture_output=True,
            text=True,
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
