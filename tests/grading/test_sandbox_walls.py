"""Programs that want to do harm: what they use up, what they reach, and what they leave behind."""

import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from programs import DOUBLES, QUICK, left_running, needs_bwrap, passes, printed

from nad.grading import box
from nad.grading.sandbox import Limits, Tests, run_inputs, run_tests

pytestmark = needs_bwrap


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
        "import os\nfor folder in ('/', '/usr', '/dev', '/run', '/proc/self/fd', '/etc', "
        f"{sys.base_prefix!r}, {str(tmp_path)!r}):\n"
        "    try:\n        open(folder + '/written', 'w')\n        print(folder)\n    except OSError:\n"
        "        pass\n"
        "print('end')"
    )
    assert printed(write) == "end"


def test_it_cannot_become_root():
    become = "import os\ntry:\n    os.setuid(0)\n    print('root')\nexcept OSError:\n    print(os.getuid() != 0)"
    assert printed(become) == "True"


def test_processes_left_behind_end_with_the_run():
    mark = f"nad{os.getpid()}l"
    leave = (
        "import os, sys, time, ctypes\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
        f"        ctypes.CDLL(None).prctl(15, b'{mark}', 0, 0, 0)\n        os.close(1)\n        time.sleep(300)\n"
        "    os._exit(0)\ndef f(x): return x * 2\nprint('left')"
    )
    assert passes(leave) is True
    assert printed(leave) == "left"
    assert left_running(mark, 0) == 0


@pytest.mark.parametrize("step", ["os.write(channel, b'x')", "time.sleep(60)"], ids=["drips", "waits"])
def test_a_reply_that_never_ends_ends_in_time(step):
    """The time limit is absolute: it does not start anew with every byte."""
    drip = (
        "import os, stat, struct, time\ndef is_socket(fd):\n    try:\n"
        "        return stat.S_ISSOCK(os.fstat(fd).st_mode)\n    except OSError:\n        return False\n"
        "channel = next(filter(is_socket, range(3, 64)))\nos.write(channel, struct.pack('>Q', 1 << 20))\n"
        f"while True:\n    {step}\n    time.sleep(0.2)"
    )
    started = time.monotonic()
    verdict = run_tests(drip, DOUBLES, QUICK)
    assert verdict.passed is False and "no time left" in verdict.reason
    assert time.monotonic() - started < 8


NAD = (
    "import sys\nfrom nad.grading.sandbox import *\nprint('started', flush=True)\n"
    "run_tests(sys.argv[1], Tests('pass', ()), Limits(wall_s=100, cpu_s=100), unsafe=sys.argv[2] == 'unsafe')"
)


@pytest.mark.parametrize("mode", ["sandbox", "unsafe"])
def test_nothing_runs_on_after_nad_is_killed(mode):
    """The program, and what it has started in a session of its own. They say their name."""
    mark = f"nad{os.getpid()}{mode[0]}"
    program = (
        f"import ctypes, os\nif os.fork() == 0: os.setsid()\n"
        f"ctypes.CDLL(None).prctl(15, b'{mark}', 0, 0, 0)\nwhile True: pass"
    )
    with subprocess.Popen([sys.executable, "-c", NAD, program, mode], stdout=subprocess.PIPE, text=True) as nad:
        assert nad.stdout is not None and nad.stdout.readline() == "started\n"
        deadline = time.monotonic() + 20
        while (started := left_running(mark, 0)) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        nad.kill()
    assert started == 2
    assert left_running(mark) == 0


def test_a_judge_that_does_not_look_at_its_clock_is_killed_itself(monkeypatch):
    """A test that never ends and asks the program nothing."""
    monkeypatch.setattr(box, "_SPARE_S", 1)
    mark = f"nad{os.getpid()}j"
    endless = f"import ctypes\nctypes.CDLL(None).prctl(15, b'{mark}', 0, 0, 0)\nwhile True: pass"
    started = time.monotonic()
    verdict = run_tests("", Tests(endless, ()), Limits(wall_s=1, cpu_s=100))
    assert verdict.passed is False and "out of time" in verdict.reason
    assert time.monotonic() - started < 10
    assert left_running(mark, 0) == 0


def test_memory_that_no_process_has_is_not_to_be_had():
    small = Limits(memory=256 << 20, disk=8 << 20)
    shared = (
        "import mmap\nheld = []\ntry:\n    while len(held) < 64:\n        held.append(mmap.mmap(-1, 16 << 20))\n"
        "except (OSError, MemoryError):\n    pass\nprint(len(held) * 16)"
    )
    assert int(printed(shared, small)) < 256
    files = (
        "import os\nheld = 0\nfor folder in ('/tmp', '/dev/shm', '/run/program'):\n    try:\n"
        "        for i in range(99):\n"
        "            with open(f'{folder}/{i}', 'wb', 0) as file: held += file.write(bytes(1 << 20))\n"
        "    except OSError:\n        pass\nprint(held >> 20)"
    )
    assert 14 <= int(printed(files, small)) <= 2 * 8 + 2


def test_files_are_counted_too():
    many = "import time\nfor i in range(10 ** 6):\n    open(f'/tmp/{i}', 'w').close()\ntime.sleep(9)"
    started = time.monotonic()
    outputs, verdict = run_inputs(many, [""])
    assert outputs is None and "more files" in verdict.reason
    verdict = run_tests(many, DOUBLES)
    assert verdict.passed is False and "more files" in verdict.reason
    assert time.monotonic() - started < 20


def test_each_input_finds_its_folders_empty():
    """Deep, locked, oddly named: whatever one input leaves is gone for the next."""
    leave = (
        "import os, socket\nfor folder in ('/tmp', '/dev/shm', '/run/program'):\n"
        "    print(sorted(os.listdir(folder)))\n    os.chdir(folder)\n"
        "    for i in range(500):\n        os.mkdir('d' * 200)\n        os.chdir('d' * 200)\n"
        "    os.chdir(folder)\n    os.makedirs('a/b')\n    os.chmod('a/b', 0)\n    os.chmod('a', 0)\n"
        "    open(b'\\xff\\n', 'w').close()\n    os.symlink('/usr', 'link')\n    os.symlink('/tmp', 'round')\n"
        "    os.mkfifo('fifo')\n    socket.socket(socket.AF_UNIX).bind('socket')"
    )
    outputs, verdict = run_inputs(leave, ["", "", ""])
    assert outputs == ["[]\n[]\n['program.py', 'stdin', 'stdout']\n"] * 3, verdict


def test_what_one_input_leaves_running_does_not_reach_the_next():
    """Forty sleepers each time: were the dead still counted, the next input could start no more."""
    leave = (
        "import os, time\nn = 0\ntry:\n    while n < 40:\n        if os.fork() == 0:\n            os.setsid()\n"
        "            time.sleep(60)\n        n += 1\nexcept OSError:\n    pass\nprint(n, flush=True)\nos._exit(0)"
    )
    assert run_inputs(leave, [""] * 4)[0] == ["40\n"] * 4


def test_a_flood_of_outputs_does_not_fill_nad():
    """Eight times 15 MB: looked at one by one, and refused together."""
    flood = "import os\nfor i in range(15):\n    b = b'\\x01' * (1 << 20)\n    while b: b = b[os.write(1, b):]\n"
    code = (
        "from pathlib import Path\nfrom nad.grading.sandbox import *\n"
        f"flood = {flood!r}\nassert run_inputs(flood, [''] * 8)[0] is None\n"
        "assert check_inputs(flood, [''] * 8, lambda i, output: len(output) == 15 << 20).passed\n"
        "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 130 << 10  # KiB


HOSTILE = {
    "import os\nos._exit(0)": False,
    "import os\nwhile True: os.fork()": False,
    "x = [0] * (1 << 28)\ndef f(x): return x": False,
    "import os\ndef f(x): os.kill(-1, 9)": False,
    "def f(x): return 'x' * (32 << 20)": False,
    "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(300)\ndef f(x): return x * 2": True,
    "for i in range(10 ** 6): open(f'/tmp/{i}', 'w').close()": False,
    "import threading\nfor i in range(200): threading.Thread(target=threading.Event().wait).start()": False,
    "while True: pass": False,
    "def f(x): return x * 2": True,
}


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_a_soak_of_hostile_programs_leaves_nothing():
    """For $NAD_SOAK_SECONDS (60): right verdicts, memory flat, no process and no descriptor left."""
    deadline = time.monotonic() + float(os.environ.get("NAD_SOAK_SECONDS", "60"))
    mark = f"nad{os.getpid()}h"
    name = f"import ctypes\nctypes.CDLL(None).prctl(15, b'{mark}', 0, 0, 0)\n"
    sizes: list[int] = []
    descriptors: list[int] = []
    limits = Limits(wall_s=4, cpu_s=2)
    with ThreadPoolExecutor(2) as pool:
        while time.monotonic() < deadline:
            verdicts = dict(
                zip(HOSTILE, pool.map(lambda program: passes(name + program, limits), HOSTILE), strict=True)
            )
            assert verdicts == HOSTILE
            assert run_inputs("import os\nwhile True: os.write(1, bytes(1 << 20))", [""], limits)[0] is None
            sizes.append(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20)
            descriptors.append(len(os.listdir("/proc/self/fd")))
    assert left_running(mark) == 0
    assert sizes[-1] <= sizes[len(sizes) // 4] + 16, sizes  # MiB
    assert len(set(descriptors)) == 1
