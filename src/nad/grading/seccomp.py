"""Which calls of the kernel a program in the sandbox may not make, as a filter that bubblewrap loads (--seccomp).

What is denied is what reaches past the sandbox's walls (keys, tracing, mounts, namespaces, modules, VM sockets) and
what holds memory that no limit of a process counts (System V shared memory, message queues, memory files). Everything
else is allowed: a new call that only a newer kernel has, and that opens such a door again, is not stopped.

The filter is a classic BPF program over `struct seccomp_data {int nr; u32 arch; u64 ip; u64 args[6]}`.
"""

import errno
import platform
import struct
from dataclasses import dataclass

from nad.errors import NadError

# Numbers on x86_64 and on aarch64; None: the call does not exist there. From 424 on all machines share them.
_DENIED: dict[str, tuple[int | None, int | None]] = {
    "add_key": (248, 217),
    "request_key": (249, 218),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "process_madvise": (440, 440),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_tree_attr": (467, 467),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "acct": (163, 89),
    "reboot": (169, 142),
    "syslog": (103, 116),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
}
_NAMESPACES = 0x7E020000  # every CLONE_NEW* that clone takes
_SOCKETS = (1, 2, 10, 16)  # AF_UNIX, AF_INET, AF_INET6, AF_NETLINK: what the empty network namespace holds
_JOIN_SESSION_KEYRING = 1

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # BPF_LD|W|ABS, BPF_JMP|J*|K, BPF_RET|K
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in seccomp_data
_KILL, _ALLOW = 0x8000_0000, 0x7FFF_0000  # SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_ALLOW


@dataclass(frozen=True)
class _Machine:
    """AUDIT_ARCH_*, the column of _DENIED, and the numbers of the calls that are looked at more closely."""

    architecture: int
    column: int
    clone: int
    clone3: int
    keyctl: int
    socket: int


_MACHINES = {
    "x86_64": _Machine(0xC000_003E, 0, clone=56, clone3=435, keyctl=250, socket=41),
    "aarch64": _Machine(0xC000_00B7, 1, clone=220, clone3=435, keyctl=219, socket=198),
}


def _step(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
    """One instruction; a jump skips `then` or `otherwise` of those after it."""
    return struct.pack("=HBBI", code, then, otherwise, value)


def _refuse(error: int) -> bytes:
    return _step(_RETURN, 0x0005_0000 | error)  # SECCOMP_RET_ERRNO


def _only(number: int, *steps: bytes) -> bytes:
    """`steps` for one call; all others skip them."""
    return _step(_EQUAL, number, 0, len(steps)) + b"".join(steps)


def seccomp_filter(machine: str = platform.machine()) -> bytes:
    """The filter for a machine; on another architecture (32-bit calls, say) it ends the program."""
    if machine not in _MACHINES:
        raise NadError(
            f"the sandbox's filter of kernel calls knows {', '.join(_MACHINES)}, not {machine}; "
            "pass --unsafe-code-execution to run programs unprotected"
        )
    calls = _MACHINES[machine]
    numbers = [n[calls.column] for n in _DENIED.values()]
    allow = _step(_RETURN, _ALLOW)
    return b"".join(
        [
            _step(_LOAD, _ARCHITECTURE),
            _step(_EQUAL, calls.architecture, 1, 0),
            _step(_RETURN, _KILL),
            _step(_LOAD, _NUMBER),
            *([_step(_AT_LEAST, 0x4000_0000, 0, 1), _step(_RETURN, _KILL)] if machine == "x86_64" else []),  # x32
            *(_only(n, _refuse(errno.EPERM)) for n in numbers if n is not None),
            _only(calls.clone3, _refuse(errno.ENOSYS)),  # its flags lie in memory; the C library falls back to clone
            _only(
                calls.clone,
                _step(_LOAD, _ARGUMENTS),
                _step(_ANY_BIT, _NAMESPACES, 0, 1),
                _refuse(errno.EPERM),
                allow,
            ),
            _only(
                calls.socket,
                _step(_LOAD, _ARGUMENTS),
                *(
                    _step(_EQUAL, family, len(_SOCKETS) - i, 0)  # to `allow`
                    for i, family in enumerate(_SOCKETS)
                ),
                _refuse(errno.EAFNOSUPPORT),
                allow,
            ),
            _only(  # the judge joins a new, empty keyring: no name (the second argument, two halves)
                calls.keyctl,
                _step(_LOAD, _ARGUMENTS),
                _step(_EQUAL, _JOIN_SESSION_KEYRING, 0, 5),
                _step(_LOAD, _ARGUMENTS + 8),
                _step(_EQUAL, 0, 0, 3),
                _step(_LOAD, _ARGUMENTS + 12),
                _step(_EQUAL, 0, 0, 1),
                allow,
                _refuse(errno.EPERM),
            ),
            allow,
        ]
    )
