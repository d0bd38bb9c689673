"""The filter of kernel calls, run instruction by instruction as the kernel does."""

import errno
import struct

import pytest

from nad.errors import NadError
from nad.grading.seccomp import seccomp_filter

X86_64, AARCH64, I386 = 0xC000003E, 0xC00000B7, 0x40000003
ALLOW, KILL = 0x7FFF0000, 0x80000000


def refused(error: int) -> int:
    return 0x50000 | error


def verdict(machine: str, architecture: int, number: int, *arguments: int) -> int:
    """What the filter returns for a call: struct seccomp_data {int nr; u32 arch; u64 ip; u64 args[6]}."""
    data = struct.pack("=iIQ6Q", number, architecture, 0, *(*arguments, *[0] * (6 - len(arguments))))
    steps = list(struct.iter_unpack("=HBBI", seccomp_filter(machine)))
    at = accumulator = 0
    while True:
        code, then, otherwise, value = steps[at]
        at += 1
        if code == 0x06:
            return value
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, value)
            continue
        holds = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}[code]
        at += then if holds else otherwise


ROWS = [  # what is asked, its number on each machine, its arguments, what comes of it
    ("read", 0, 63, (), ALLOW),
    ("openat", 257, 56, (), ALLOW),
    ("execve", 59, 221, (), ALLOW),
    ("ptrace", 101, 117, (), refused(errno.EPERM)),
    ("mount", 165, 40, (), refused(errno.EPERM)),
    ("unshare", 272, 97, (), refused(errno.EPERM)),
    ("bpf", 321, 280, (), refused(errno.EPERM)),
    ("shmget", 29, 194, (), refused(errno.EPERM)),
    ("add_key", 248, 217, (), refused(errno.EPERM)),
    ("io_uring_setup", 425, 425, (), refused(errno.EPERM)),
    ("clone3", 435, 435, (), refused(errno.ENOSYS)),
    ("clone, a thread", 56, 220, (0x3D0F00,), ALLOW),
    ("clone, a process", 56, 220, (0x1200011,), ALLOW),
    ("clone, a user namespace", 56, 220, (0x10000011,), refused(errno.EPERM)),
    ("clone, a cgroup namespace", 56, 220, (0x2000011,), refused(errno.EPERM)),
    ("keyctl, a new keyring", 250, 219, (1, 0), ALLOW),
    ("keyctl, a keyring by name", 250, 219, (1, 0x7F00), refused(errno.EPERM)),
    ("keyctl, a name above 4 GB", 250, 219, (1, 1 << 32), refused(errno.EPERM)),
    ("keyctl, read", 250, 219, (11, 0), refused(errno.EPERM)),
    ("socket, Unix", 41, 198, (1,), ALLOW),
    ("socket, IPv6", 41, 198, (10,), ALLOW),
    ("socket, netlink", 41, 198, (16,), ALLOW),
    ("socket, to the host of a virtual machine", 41, 198, (40,), refused(errno.EAFNOSUPPORT)),
    ("socket, packets", 41, 198, (17,), refused(errno.EAFNOSUPPORT)),
    ("a number between two that are known", 1000, 1000, (), ALLOW),
]


@pytest.mark.parametrize(("name", "on_x86_64", "on_aarch64", "arguments", "expected"), ROWS, ids=lambda v: str(v)[:40])
def test_each_call_gets_its_answer_on_both_machines(name, on_x86_64, on_aarch64, arguments, expected):
    assert verdict("x86_64", X86_64, on_x86_64, *arguments) == expected
    assert verdict("aarch64", AARCH64, on_aarch64, *arguments) == expected


def test_another_architecture_ends_the_program():
    assert verdict("x86_64", I386, 3) == KILL
    assert verdict("x86_64", AARCH64, 63) == KILL
    assert verdict("aarch64", X86_64, 0) == KILL
    assert verdict("x86_64", X86_64, 0x40000000) == KILL  # x32


def test_an_unknown_machine_is_named():
    with pytest.raises(NadError, match=r"x86_64, aarch64, not riscv64.*--unsafe-code-execution"):
        seccomp_filter("riscv64")
