"""Calls of the kernel that reach past the sandbox's walls: keys, mounts, namespaces, memory that nobody counts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from programs import as_somebody, needs_bwrap, needs_root, printed

from nad.grading.sandbox import run_inputs

pytestmark = [
    needs_bwrap,
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of calls on x86_64"),
]
CALLS = (
    "import ctypes, errno, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
    "def call(number, *args):\n    ctypes.set_errno(0)\n"
    "    done = libc.syscall(*(a if isinstance(a, bytes) else ctypes.c_long(a) for a in (number, *args)))\n"
    "    return errno.errorcode.get(ctypes.get_errno(), 'OK') if done < 0 else 'OK'\n"
)
DENIED = {
    "add_key": "248, b'user', b'name', b'key', 3, -3",
    "request_key": "249, b'user', b'name', 0, -3",
    "keyctl, its session's keyring": "250, 0, -3, 0",
    "keyctl, a keyring with a name": "250, 1, b'name'",
    "keyctl, a name far up": "250, 1, 1 << 40",
    "ptrace": "101, 0, 0, 0, 0",
    "process_vm_readv": "310, 1, 0, 0, 0, 0, 0",
    "bpf": "321, 0, 0, 0",
    "perf_event_open": "298, 0, 0, -1, -1, 0",
    "userfaultfd": "323, 1",
    "io_uring_setup": "425, 8, 0",
    "unshare": "272, 0x10000000",
    "unshare nothing": "272, 0",
    "setns": "308, 0, 0",
    "mount": "165, 0, 0, 0, 0, 0",
    "fsopen": "430, 0, 0",
    "chroot": "161, b'/'",
    "a clone in a new user namespace": "56, 0x10000011, 0, 0, 0, 0",
    "a clone in a new mount namespace": "56, 0x20011, 0, 0, 0, 0",
    "shmget": "29, 0, 4096, 0o1600",
    "semget": "64, 0, 1, 0o1600",
    "msgget": "68, 0, 0o1600",
    "mq_open": "240, b'name', 0o102, 0o600, 0",
    "memfd_create": "319, b'name', 0",
    "pidfd_getfd": "438, 0, 0, 0",
    "init_module": "175, 0, 0, 0",
    "kexec_load": "246, 0, 0, 0, 0",
}


def test_the_kernel_s_doors_are_closed():
    ask = "".join(f"print(call({numbers}))\n" for numbers in DENIED.values())
    assert dict(zip(DENIED, printed(CALLS + ask).split(), strict=True)) == dict.fromkeys(DENIED, "EPERM")


def test_what_is_not_known_to_be_harmless_is_not_there():
    ask = "print(call(435, 0, 0))\nprint(call(41, 40, 1, 0))\nprint(call(41, 38, 5, 0))\nprint(call(41, 1, 1, 0))"
    assert printed(CALLS + ask).split() == [
        "ENOSYS",  # clone3, whose flags a filter cannot see
        "EAFNOSUPPORT",  # a socket to the machine that this virtual machine runs on
        "EAFNOSUPPORT",  # the kernel's cryptography
        "OK",  # a Unix socket
    ]


def test_calls_of_another_architecture_end_the_program():
    """The same numbers mean other calls there."""
    x32 = CALLS + "print('before', flush=True)\ncall(0x40000000 + 250, 0, -3, 0)\nprint('after')"
    assert run_inputs(x32, [""])[1].reason == "input 0: exit status 31"  # SIGSYS


def test_a_keyring_of_its_own_can_be_had():
    """The judge itself takes one; what the program joins is as new and empty as that."""
    assert printed(CALLS + "print(call(250, 1, 0))\nprint(call(248, b'user', b'name', b'key', 3, -3))") == "OK\nEPERM"


def test_the_keys_of_nad_s_session_stay_out_of_reach_without_the_filter(monkeypatch, tmp_path):
    """The new keyring alone: nad with a key in its session, and a sandbox whose filter allows everything."""
    code = (
        "import ctypes\nfrom nad.grading import sandbox\nfrom nad.grading.seccomp import _ALLOW, _RETURN, _step\n"
        "sandbox.seccomp_filter = lambda: _step(_RETURN, _ALLOW)\nlibc = ctypes.CDLL(None)\n"
        "if libc.syscall(250, 1, None) < 0 or libc.syscall(248, b'user', b'nad-key', b'secret', 6, -3) < 0:\n"
        "    raise SystemExit('no keys')\n"
        "outputs, verdict = sandbox.run_inputs("
        + repr(CALLS + "print(call(250, 10, -3, b'user', b'nad-key', 0))")
        + ", [''])\nassert outputs == ['ENOKEY\\n'], (outputs, verdict)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.stderr.strip() == "no keys":
        pytest.skip("needs a kernel with keys")
    assert done.returncode == 0, done.stderr


@needs_root
def test_a_delegated_control_group_cannot_be_mounted_and_killed():
    """As an unprivileged user who owns the control group that nad runs in."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    root = next((Path(m[1]) for m in mounts if m[2] == "cgroup2"), Path("/none"))
    group = root / f"nad-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError:
        pytest.skip("needs a control group (cgroup v2) to hand over")
    attack = (
        "import ctypes, os\nlibc = ctypes.CDLL(None)\nprint(libc.unshare(0x12020000))\nos.mkdir('/tmp/m')\n"
        "print(libc.mount(b'cg', b'/tmp/m', b'cgroup2', 0, None), os.listdir('/tmp/m'))\n"
        "try:\n    open('/tmp/m/cgroup.kill', 'w').write('1')\nexcept OSError as e:\n    print(e.errno)"
    )
    code = (
        f"from nad.grading.sandbox import *\noutputs, verdict = run_inputs({attack!r}, [''])\n"
        "lines = (outputs or [''])[0].splitlines()\nassert lines[:2] == ['-1', '-1 []'], (outputs, verdict)"
    )
    try:
        for file in (group, *(group / f"cgroup.{name}" for name in ("procs", "kill", "subtree_control"))):
            os.chown(file, 60001, 60001)
        done = as_somebody(code, group=group / "cgroup.procs")
        assert done.returncode == 0, done.stderr
    finally:
        group.rmdir()


@needs_root
def test_an_unprivileged_user_s_sandbox_has_the_same_doors_closed():
    ask = CALLS + "".join(f"print(call({numbers}))\n" for numbers in DENIED.values())
    code = (
        f"from nad.grading.sandbox import *\noutputs, verdict = run_inputs({ask!r}, [''])\n"
        "assert set((outputs or [''])[0].split()) == {'EPERM'}, (outputs, verdict)"
    )
    done = as_somebody(code)
    assert done.returncode == 0, done.stderr
