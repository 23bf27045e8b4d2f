"""A seccomp filter: forbid this process, for good, system calls that no exercise needs.

The filter is a classic BPF program (see seccomp(2)): it loads the number of a call, compares it
with those that are forbidden, and answers EPERM. `socket` is among them: there is no network, not
even to a socket in the file system. `socketpair` stays for streams, which are connected for good;
a datagram socket could send to any address.

No call changes a file's mode or times: a process reaches its own interpreter through
/proc/self/exe, past every mount that it sees. Copying a file does ask for these, also in the
scratch folder, so they are not refused: nothing is done, and success reported.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct

# name: (x86_64, aarch64); None where there is no such call
FORBIDDEN = {
    "socket": (41, 198),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "setxattrat": (463, 463),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "removexattrat": (466, 466),
    "file_setattr": (469, 469),
    "memfd_create": (319, 279),  # memory that no process need map, so that nobody counts it
    "memfd_secret": (447, 447),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "setuid": (105, 146),
    "setgid": (106, 144),
    "setreuid": (113, 145),
    "setregid": (114, 143),
    "setresuid": (117, 147),
    "setresgid": (119, 149),
    "setgroups": (116, 159),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "open_by_handle_at": (304, 265),
    "io_uring_setup": (425, 425),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "kexec_load": (246, 104),
    "reboot": (169, 142),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "mq_open": (240, 180),
}
IGNORED = {
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
}
CLONE, CLONE3, SOCKETPAIR = (56, 220), (435, 435), (53, 199)
ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # AUDIT_ARCH_*
X32 = 0x40000000  # numbers from here on are x86_64's second set
NEW_NAMESPACES = 0x7E020080  # CLONE_NEW*: time, mount, cgroup, UTS, IPC, user, PID, network
DATAGRAMS = 2  # the bit that SOCK_DGRAM and SOCK_RAW have, SOCK_STREAM and SOCK_SEQPACKET have not

LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # BPF operations
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, (16, 24)  # where they are in struct seccomp_data
ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000
SET_SECCOMP, FILTER = 22, 2  # prctl's


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def restrict() -> None:
    """Forbid the calls to this process and all that it starts; it must have no new privileges.

    Raises
    ------
    OSError if the kernel refuses, or the processor is of a kind that is not known here.
    """
    machine = platform.machine()
    if machine not in ARCHITECTURES:
        raise OSError(errno.ENOSYS, f"no system call filter is known for {machine}")
    code = b"".join(_filter(*ARCHITECTURES[machine]))
    program = _Program(len(code) // 8, code)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(SET_SECCOMP, FILTER, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_SECCOMP)")


def _filter(column: int, architecture: int) -> list[bytes]:
    """Return the program's instructions: operation, jump if true, jump if false, operand."""
    code = [_do(LOAD, ARCHITECTURE), _do(EQUAL, architecture, 1, 0), _do(RETURN, KILL)]
    code += [_do(LOAD, NUMBER), _do(AT_LEAST, X32, 0, 1), _do(RETURN, KILL)]
    code += [_do(EQUAL, CLONE3[column], 0, 1), _do(RETURN, REFUSE | errno.ENOSYS)]
    for calls, answer in ((FORBIDDEN, errno.EPERM), (IGNORED, 0)):
        for number in (numbers[column] for numbers in calls.values()):
            if number is not None:
                code += [_do(EQUAL, number, 0, 1), _do(RETURN, REFUSE | answer)]
    for numbers, argument, bits in ((CLONE, 0, NEW_NAMESPACES), (SOCKETPAIR, 1, DATAGRAMS)):
        code += [_do(EQUAL, numbers[column], 0, 4), _do(LOAD, ARGUMENTS[argument])]
        code += [_do(ANY_BIT, bits, 0, 1), _do(RETURN, REFUSE | errno.EPERM), _do(RETURN, ALLOW)]
    return [*code, _do(RETURN, ALLOW)]


def _do(operation: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", operation, if_true, if_false, operand)
