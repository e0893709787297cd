"""A disk that fails on demand: system calls of a process and all it starts answered with an errno.

No compiler and no privileges are needed: the processes run under a seccomp filter that asks this
process about every call that changes files (Linux 5.5 and newer).  A :class:`FailingDisk` answers
from its rules, which are switched on and off while things run; what no rule names goes on.

    with failing_disk() as disk:
        home.through = disk.launcher
        home.start_daemon()
        rule = disk.fail(errno.EIO, SYNCS, "events.jsonl")
        ...
        rule.lift()
        assert rule.hits

As a script it installs the filter in itself, hands the listener over and becomes a command:
``python iofaults.py DESCRIPTOR COMMAND...``
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import re
import select
import socket
import struct
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

# Numbers from the kernel's tables; None: the architecture has no such call.
CALLS: dict[str, tuple[int | None, int | None]] = {  # name: (x86_64, aarch64)
    "write": (1, 64),
    "pwrite64": (18, 68),
    "writev": (20, 66),
    "pwritev": (296, 70),
    "sendfile": (40, 71),
    "copy_file_range": (326, 285),
    "fsync": (74, 82),
    "fdatasync": (75, 83),
    "ftruncate": (77, 46),
    "fallocate": (285, 47),
    "open": (2, None),
    "openat": (257, 56),
    "rename": (82, None),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "rmdir": (84, None),
    "unlink": (87, None),
    "unlinkat": (263, 35),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "utimensat": (280, 88),
}
WRITES = frozenset(
    {"write", "pwrite64", "writev", "pwritev", "sendfile", "copy_file_range", "ftruncate",
     "fallocate"}
)  # fmt: skip
SYNCS = frozenset({"fsync", "fdatasync"})
RENAMES = frozenset({"rename", "renameat", "renameat2"})
OPENS = frozenset({"open", "openat"})  # only those that may write or create
EVERYTHING = frozenset(CALLS)  # what a read-only filesystem refuses

# Which argument names the file: a descriptor, a path, or a folder's descriptor and a path behind
# it.  Of a rename it is the new name that counts.
BY_DESCRIPTOR = {name: 0 for name in (*WRITES, *SYNCS, "fchmod")} | {"copy_file_range": 2}
BY_PATH = {"open": 0, "rename": 1, "mkdir": 0, "rmdir": 0, "unlink": 0, "mknod": 0, "chmod": 0}
BEHIND_FOLDER = {
    "openat": 0, "renameat": 2, "renameat2": 2, "mkdirat": 0, "unlinkat": 0, "mknodat": 0,
    "fchmodat": 0, "utimensat": 0,
}  # fmt: skip
OPEN_FLAGS = {"open": 1, "openat": 2}
MAY_CHANGE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
AT_FDCWD = -100

ARCHITECTURES = {"x86_64": (0, 0xC000003E, 317), "aarch64": (1, 0xC00000B7, 277)}
PIDFD_GETFD = 438
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_SET_MODE_FILTER = 1
FLAG_NEW_LISTENER = 1 << 3
FLAG_WAIT_KILLABLE_RECV = 1 << 5  # a signal does not make a call be asked about twice (5.19)
RET_ALLOW = 0x7FFF0000
RET_USER_NOTIF = 0x7FC00000
IOCTL_RECV, IOCTL_SEND, IOCTL_ID_VALID = 0xC0502100, 0xC0182101, 0x40082102
USER_NOTIF_FLAG_CONTINUE = 1
NOTIFICATION = struct.Struct("=QIIiIQ6Q")  # id, pid, flags, call, architecture, pointer, arguments
RESPONSE = struct.Struct("=QqiI")  # id, value, error, flags


@dataclass
class Rule:
    """Calls that fail while the rule is on, and how often one did.

    ``only``: the n-th matching call alone (from 1); ``torn``: the first write that matches is
    carried out by half, and only those behind it fail; ``after``: it is on once something was
    renamed to a path that matches, which is sooner than anybody who waits for that would know.
    """

    error: int
    calls: frozenset[str]
    path: re.Pattern[str]
    only: int | None = None
    torn: bool = False
    after: re.Pattern[str] | None = None
    hits: int = 0
    on: bool = True
    seen: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def lift(self) -> None:
        """Let everything go on from now on; a rule that never hit anything has shown nothing."""
        self.on = False
        assert self.hits, f"nothing ever matched {self.path.pattern!r}"

    def may_concern(self, call: str) -> bool:
        """Whether it matters which path a `call` is about."""
        return self.on and call in (self.calls if self.after is None else RENAMES)

    def applies(self, call: str, path: str) -> bool:
        """Whether this very call fails; counts."""
        if self.after is not None:
            if self.after.search(path):
                self.after = None
            return False
        if not self.on or call not in self.calls or not self.path.search(path):
            return False
        with self._lock:
            self.seen += 1
            if self.only is not None and self.seen != self.only:
                return False
            self.hits += 1
        return True


class FailingDisk:
    """Answers for the calls of every command that was started through its ``launcher``."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._theirs = theirs
        theirs.set_inheritable(True)
        self.descriptors = (theirs.fileno(),)  # to be passed on to whatever is launched
        self.launcher = (sys.executable, "-P", os.path.abspath(__file__), str(theirs.fileno()))
        self.unanswered: list[str] = []  # calls whose path could not be found out
        self._rules: list[Rule] = []
        self._bell, self._ringer = os.pipe()
        self._thread = threading.Thread(target=self._answer_all, daemon=True)
        self._thread.start()

    def fail(
        self,
        error: int,
        calls: frozenset[str],
        path: str,
        *,
        only: int | None = None,
        torn: bool = False,
        after: str | None = None,
    ) -> Rule:
        """Switch on a rule: `calls` whose path has a match of the regular expression `path`."""
        started = None if after is None else re.compile(after)
        rule = Rule(error, calls, re.compile(path), only, torn, started)
        self._rules = [*self._rules, rule]
        return rule

    def close(self) -> None:
        """Stop answering; what still runs under the filter gets ENOSYS, so end it before."""
        os.write(self._ringer, b"\n")
        self._thread.join()
        for end in (self._ours, self._theirs):
            end.close()
        for descriptor in (self._bell, self._ringer):
            os.close(descriptor)

    def _answer_all(self) -> None:
        poll = select.poll()
        for descriptor in (self._bell, self._ours.fileno()):
            poll.register(descriptor, select.POLLIN)
        listeners: set[int] = set()
        while True:
            for descriptor, events in poll.poll():
                if descriptor == self._bell:
                    for listener in listeners:
                        os.close(listener)
                    return
                if descriptor == self._ours.fileno():
                    _, received, _, _ = socket.recv_fds(self._ours, 1, 1)
                    for listener in received:
                        listeners.add(listener)
                        poll.register(listener, select.POLLIN)
                elif events & select.POLLIN:
                    self._answer(descriptor)
                else:  # the last process under this filter has ended
                    poll.unregister(descriptor)
                    listeners.remove(descriptor)
                    os.close(descriptor)

    def _answer(self, listener: int) -> None:
        buffer = bytearray(NOTIFICATION.size)
        try:
            fcntl.ioctl(listener, IOCTL_RECV, buffer)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):  # it was killed meanwhile
                return
            raise
        number, pid, _, call, _, _, *arguments = NOTIFICATION.unpack(buffer)
        response = RESPONSE.pack(number, 0, 0, USER_NOTIF_FLAG_CONTINUE)
        with suppress(OSError):  # it ended while we looked
            response = self._judged(number, pid, NAMES_OF_CALLS[call], arguments) or response
        with suppress(FileNotFoundError):
            fcntl.ioctl(listener, IOCTL_SEND, bytearray(response))

    def _judged(self, number: int, pid: int, call: str, arguments: Sequence[int]) -> bytes | None:
        """The response to a call that a rule names, else None."""
        rules = [rule for rule in self._rules if rule.may_concern(call)]
        if not rules:
            return None
        path = _path(pid, call, arguments)
        for rule in rules:
            if rule.applies(call, path):
                if rule.torn and call == "write" and rule.hits == 1:
                    return RESPONSE.pack(number, _write_half(pid, arguments), 0, 0)
                return RESPONSE.pack(number, 0, -rule.error, 0)
        return None


@contextmanager
def failing_disk() -> Iterator[FailingDisk]:
    """A disk for the length of a block; end what runs on it within the block."""
    disk = FailingDisk()
    try:
        yield disk
    finally:
        disk.close()


def why_impossible() -> str | None:
    """Why this system cannot answer for system calls, or None if it can."""
    machine = platform.machine()
    if machine not in ARCHITECTURES or sys.platform != "linux":
        return f"no filter for {machine}"
    import subprocess

    with failing_disk() as disk:
        tried = subprocess.run(
            [*disk.launcher, sys.executable, "-c", ""],
            pass_fds=disk.descriptors,
            capture_output=True,
            text=True,
        )
    return tried.stderr.strip().rpartition("\n")[2] if tried.returncode else None


def _path(pid: int, call: str, arguments: Sequence[int]) -> str:
    """The absolute path that a call of process (or thread) `pid` is about."""
    if call in BY_DESCRIPTOR:
        return os.readlink(f"/proc/{pid}/fd/{_int(arguments[BY_DESCRIPTOR[call]])}")
    if call in BY_PATH:
        folder, name = AT_FDCWD, _text(pid, arguments[BY_PATH[call]])
    else:
        position = BEHIND_FOLDER[call]
        folder, name = _int(arguments[position]), _text(pid, arguments[position + 1])
    if os.path.isabs(name):
        return os.path.normpath(name)
    beneath = os.readlink(f"/proc/{pid}/{'cwd' if folder == AT_FDCWD else f'fd/{folder}'}")
    return os.path.normpath(os.path.join(beneath, name))


def _int(argument: int) -> int:
    """A C int as it was passed in a register."""
    return ctypes.c_int32(argument & 0xFFFFFFFF).value


def _text(pid: int, pointer: int) -> str:
    if not pointer:  # utimensat of a descriptor
        return ""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        memory.seek(pointer)
        data = memory.read(4096)
    return os.fsdecode(data.partition(b"\0")[0])


def _write_half(pid: int, arguments: Sequence[int]) -> int:
    """Carry out half of a write in its process's name; how many bytes were written."""
    with open(f"/proc/{pid}/status") as status:
        leader = next(int(line.split()[1]) for line in status if line.startswith("Tgid:"))
    descriptor, pointer, size = _int(arguments[0]), arguments[1], arguments[2]
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        memory.seek(pointer)
        data = memory.read(size // 2)
    process = os.pidfd_open(leader)
    try:
        same = _syscall(PIDFD_GETFD, process, descriptor, 0)  # with the position they share
        try:
            return os.write(same, data)
        finally:
            os.close(same)
    finally:
        os.close(process)


def _syscall(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result: int = libc.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _numbers() -> dict[str, int]:
    column = ARCHITECTURES.get(platform.machine(), (0,))[0]
    return {name: number for name, both in CALLS.items() if (number := both[column]) is not None}


NAMES_OF_CALLS = {number: name for name, number in _numbers().items()}


def _filter() -> bytes:
    """The filter's instructions (classic BPF): ask about CALLS, and of opens only those to write.

    An instruction is (code, jump if true, jump if false, operand); jumps count instructions.
    """
    load, equal, any_bit, end = 0x20, 0x15, 0x45, 0x06
    first_argument = 16  # offsets in struct seccomp_data; the low half of little-endian words
    program = [
        (load, 0, 0, 4),  # the architecture
        (equal, 1, 0, ARCHITECTURES[platform.machine()][1]),
        (end, 0, 0, RET_ALLOW),
        (load, 0, 0, 0),  # the call's number
    ]
    for name, number in _numbers().items():
        if name in OPEN_FLAGS:
            program += [
                (equal, 0, 4, number),
                (load, 0, 0, first_argument + 8 * OPEN_FLAGS[name]),
                (any_bit, 0, 1, MAY_CHANGE),
                (end, 0, 0, RET_USER_NOTIF),
                (end, 0, 0, RET_ALLOW),
            ]
        else:
            program += [(equal, 0, 1, number), (end, 0, 0, RET_USER_NOTIF)]
    program.append((end, 0, 0, RET_ALLOW))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def _listen() -> int:
    """Install the filter in this process; the descriptor of its listener."""

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_NO_NEW_PRIVS)")
    instructions = _filter()
    program = Program(len(instructions) // 8, instructions)
    seccomp = ARCHITECTURES[platform.machine()][2]
    for flags in (FLAG_NEW_LISTENER | FLAG_WAIT_KILLABLE_RECV, FLAG_NEW_LISTENER):
        with suppress(OSError):
            return _syscall(seccomp, SECCOMP_SET_MODE_FILTER, flags, ctypes.byref(program))
    raise OSError(ctypes.get_errno(), "the kernel does not let a filter ask another process")


def main(arguments: Sequence[str]) -> None:
    """Become a command whose calls are answered for at the other end of a socket."""
    with socket.socket(fileno=int(arguments[0])) as other_end:
        socket.send_fds(other_end, [b"\n"], [_listen()])
    os.execvp(arguments[1], list(arguments[1:]))


if __name__ == "__main__":
    main(sys.argv[1:])
