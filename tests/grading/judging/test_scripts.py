"""Programs that read standard input end as `python program.py` does: each row prints twice the number it reads."""

import os

import pytest
from programs import needs_bwrap, others_programs

from nad.grading.judging.processes import empty
from nad.grading.programs import joined
from nad.grading.sandbox import run_inputs
from nad.tasks.lcb import _PRELUDE

pytestmark = needs_bwrap
SCRIPTS = {
    "a thread that nobody joins": (
        "import threading, time\ndef main():\n    n = int(input())\n    time.sleep(0.2)\n    print(n * 2)\n"
        "threading.Thread(target=main).start()"
    ),
    "a daemon that nobody waits for": (
        "import threading, time\nthreading.Thread(target=time.sleep, args=(30,), daemon=True).start()\n"
        "print(int(input()) * 2)"
    ),
    "a pool that nobody closes": (
        "from concurrent.futures import ThreadPoolExecutor\nimport time\nn = int(input())\n"
        "def work():\n    time.sleep(0.2)\n    print(n * 2)\nThreadPoolExecutor(2).submit(work)"
    ),
    "twelve threads": (
        "from concurrent.futures import ThreadPoolExecutor\nimport time\nn = int(input())\n"
        "with ThreadPoolExecutor(12) as e: list(e.map(time.sleep, [0.1] * 12))\nprint(n * 2)"
    ),
    "a text printed at exit": (
        "import atexit, io, sys\nbuffer = io.StringIO()\nsys.stdout = buffer\n"
        "@atexit.register\ndef write(): sys.__stdout__.write(buffer.getvalue())\nprint(int(input()) * 2)"
    ),
    "sys.exit, then at exit": (
        "import atexit, sys\nout = []\natexit.register(lambda: print(*out))\nout.append(int(input()) * 2)\nsys.exit()"
    ),
    "an output that is never closed": "out = open(1, 'w')\nout.write(str(int(input()) * 2))",
    "an output that only its end writes": (
        "import sys\nclass W:\n    def __init__(self): self.b = []\n"
        "    def __del__(self): sys.stdout.write(''.join(self.b))\nw = W()\nw.b.append(str(int(input()) * 2))"
    ),
    "quit": "print(int(input()) * 2)\nquit()",
    "exit in a function": "def main():\n    print(int(input()) * 2)\n    exit(0)\nmain()",
    "os._exit": "import os\nprint(int(input()) * 2, flush=True)\nos._exit(0)",
    "/dev/stdin": "print(int(open('/dev/stdin').readline()) * 2)",
    "/dev/stdin, later": "n = int(input())\nassert int(open('/dev/stdin').read()) == n\nprint(n * 2)",
    "/dev/stdout": "print(int(input()) * 2, file=open('/dev/stdout', 'w'))",
    "/dev/stdout, closed and opened again": (
        "import os, time\nn = int(input())\nos.close(1)\ntime.sleep(0.3)\n"
        "assert os.open('/dev/stdout', os.O_WRONLY) == 1\nprint(n * 2)"
    ),
    "descriptor 0": "print(int(open(0).read()) * 2)",
    "the size of its input": "import os\nprint(int(os.read(0, os.fstat(0).st_size)) * 2)",
    "its own file": (
        "import os, sys\nassert sys.argv == [__file__] and os.path.isabs(__file__)\n"
        "assert open(__file__).read().startswith('import os') or 'import *' in open(__file__).read()\n"
        "print(int(input()) * 2)"
    ),
    "a process": (
        "from multiprocessing import Process\ndef work(n): print(n * 2, flush=True)\n"
        "if __name__ == '__main__':\n    p = Process(target=work, args=(int(input()),))\n    p.start()\n    p.join()"
    ),
    "a process of a new interpreter": (
        "import multiprocessing as m\ndef work(n): print(n * 2, flush=True)\nif __name__ == '__main__':\n"
        "    p = m.get_context('spawn').Process(target=work, args=(int(input()),))\n    p.start()\n    p.join()"
    ),
    "the interpreter again": (
        "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'print(int(input()) * 2)'], check=True)"
    ),
    "main": "def main(): print(int(input()) * 2)\nif __name__ == '__main__': main()",
    "deep recursion": (
        "import sys\nsys.setrecursionlimit(10 ** 6)\ndef r(n): return n and 2 + r(n - 1)\nn = int(input())\n"
        "assert r(30000) == 60000\nprint(r(n))"
    ),
    "asyncio": "import asyncio\nasync def main(): print(int(input()) * 2)\nasyncio.run(main())",
    "an annotation of tomorrow": "from __future__ import annotations\ndef f(x: Later): print(x * 2)\nf(int(input()))",
}


@pytest.mark.parametrize("prelude", [False, True], ids=["bare", "prelude"])
@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS.keys())
def test_a_script_ends_as_python_ends_it(script, prelude):
    outputs, verdict = run_inputs(joined(_PRELUDE, script) if prelude else script, ["21\n", "4"])
    assert outputs is not None, verdict
    assert [output.strip() for output in outputs] == ["42", "8"]


FAILING = {
    "raises": "1 / 0",
    "exits with 1": "import sys\nsys.exit(1)",
    "exits with a text": "exit('wrong')",
    "is killed": "import os\nos.kill(os.getpid(), 9)",
    "cannot write at its end": "import os, sys\nprint('x' * 10)\nos.close(1)",
    "is no Python": "print(",
    "raises at exit of a thread, alone": "import os\nos._exit(3)",
}


@pytest.mark.parametrize("script", FAILING.values(), ids=FAILING.keys())
def test_a_script_that_fails_has_no_output(script):
    outputs, verdict = run_inputs(script, [""])
    assert outputs is None and verdict.passed is False and "exit status" in verdict.reason


def test_the_scripts_of_others_end_as_python_ends_them():
    """All 28, with and without what LiveCodeBench puts before them."""
    code = others_programs("stdin_h.py").read_text().partition("c=0\n")[0]
    rows: dict[str, object] = {}
    exec(compile(code.replace("nad.sandbox", "nad.grading.sandbox"), "stdin_h.py", "exec"), rows)
    found = rows["H"]
    assert isinstance(found, dict) and len(found) == 28
    failed = [
        name
        for name, script in found.items()
        for whole in (script, joined(_PRELUDE, script))
        if (run_inputs(whole, ["21\n"])[0] or [""])[0].strip() != "42"
    ]
    assert failed == []


def test_a_folder_is_emptied_whatever_lies_in_it(tmp_path):
    """What nests is moved up first; a link is removed, and not followed."""
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    folder = tmp_path / "folder"
    (folder / "a" / "b" / "c").mkdir(parents=True)
    (folder / "a" / "b" / "file").touch()
    (folder / "link").symlink_to(kept)
    (folder / "a" / "link").symlink_to(kept)
    (folder / "a").chmod(0)
    os.mkfifo(folder / "fifo")
    empty(str(folder))
    assert list(folder.iterdir()) == [] and (kept / "file").exists()
