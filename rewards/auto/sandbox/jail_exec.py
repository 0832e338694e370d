"""Locks the present process in, layer by layer, and turns it into the program that is to be run there.

Started as ``python -I -S -B jail_exec.py CONFIG TARGET [ARGUMENT ...]``; it needs nothing but the standard library, and
imports nothing of this package. CONFIG is JSON, the fields of ``Config``. Layers, in the order in which they are laid:
no file left open, a session of its own, another user, death with its parent, no new privileges, resource limits,
Landlock (no file but those named) and a seccomp filter that lets through only the system calls listed here. None of it
needs privilege but the other user. A layer that cannot be had is reported ``off``; where ``require`` names it, the
process ends with ``MISSING`` instead.

A target that ends in ``.py`` runs in this very process, so its filter admits no exec at all; any other is executed, and
the filter admits that one exec, of that one open file.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import resource
import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType

MISSING = 97
"""Exit status where a required layer cannot be had."""

ORPHAN = 98
"""Exit status where the parent was gone before the process was tied to it."""

_TARGET_FD = 3
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NAME, _PR_SET_NO_NEW_PRIVS = 1, 22, 15, 38
_SIGKILL = 9
_EPERM, _ENOSYS = 1, 38
_AT_EMPTY_PATH = 0x1000
_CLONE_THREAD = 0x10000
_PROT_EXEC = 4
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_LANDLOCK_EXECUTE, _LANDLOCK_READ_FILE = 1, 4
_FILES_BY_ABI = {1: 13, 2: 14, 3: 15, 4: 15}
"""How many rights over files an ABI of Landlock knows; later ones know 16."""


@dataclass(frozen=True)
class Config:
    """What is to be locked, and how."""

    parent: int = 0
    """Process that this one must not outlive; 0 = do not check who it is."""
    user: int | None = None
    """User and group to become; None = stay."""
    memory: int | None = None
    """Most bytes of address space; for a ``.py`` target, beyond what it has when it starts. None = no limit."""
    read: Sequence[str] = ()
    """Files and folders that may be read."""
    execute: Sequence[str] = ()
    """Files that may be read and executed."""
    skip: Sequence[str] = ()
    """Layers to leave out."""
    require: Sequence[str] = ()
    """Layers without which nothing is run."""
    report: bool = False
    """Print the layers as a line of JSON before the target begins."""
    imports: Sequence[str] = ()
    """Modules that a ``.py`` target needs: no file can be read any more when it begins."""


@dataclass
class Jail:
    """Lays the layers, and knows which of them hold."""

    config: Config
    layers: dict[str, str] = field(default_factory=dict)
    libc: ctypes.CDLL = field(default_factory=lambda: ctypes.CDLL(None, use_errno=True))

    def lay(self, name: str, layer: Callable[[], str]) -> None:
        """Lay one, unless it is to be skipped; ``layer`` answers with what to report."""
        self.layers[name] = "off"
        if name not in self.config.skip:
            try:
                self.layers[name] = layer()
            except (OSError, ValueError, AttributeError):
                self.layers[name] = "off"
        if self.layers[name] == "off" and name in self.config.require:
            os.write(2, f"jail: {name} cannot be had\n".encode())
            os._exit(MISSING)

    def call(self, number: int, *arguments: object) -> int:
        """A system call.

        Raises:
            OSError: it failed.
        """
        result = self.libc.syscall(ctypes.c_long(number), *arguments)
        if result < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return result

    def prctl(self, option: int, first: object, second: object = 0) -> str:
        """A call of prctl; ``on``.

        Raises:
            OSError: it failed.
        """
        zero = ctypes.c_ulong(0)
        if self.libc.prctl(option, first, second, zero, zero) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return "on"


def close_files(keep: int) -> None:
    """Close every file but the first ``keep``."""
    os.closerange(keep, min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 65536))


def become(jail: Jail) -> str:
    """Take another user; only root may."""
    user = jail.config.user
    if user is None or os.geteuid() != 0:
        return "off"
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    return str(user)


def tie_to_parent(jail: Jail) -> str:
    """Die with the parent."""
    jail.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(_SIGKILL))
    if jail.config.parent and os.getppid() != jail.config.parent:
        os._exit(ORPHAN)
    return "on"


def limit(jail: Jail, memory: int | None) -> str:
    """Resource limits, none of which can be raised again."""
    limits = {
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 16,
        resource.RLIMIT_STACK: 8 << 20,
        resource.RLIMIT_NPROC: 512,
    }
    if memory is not None:
        limits[resource.RLIMIT_AS] = memory
    for kind, most in limits.items():
        hard = resource.getrlimit(kind)[1]
        value = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (value, value))
    return "on"


def landlock(jail: Jail) -> str:
    """No file but those named, no network, no signals to others."""
    abi = jail.call(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    rights = (1 << _FILES_BY_ABI.get(abi, 16)) - 1
    words = [rights, *([3] if abi >= 4 else []), *([3] if abi >= 6 else [])]
    attributes = struct.pack(f"={len(words)}Q", *words)
    ruleset = jail.call(_LANDLOCK_CREATE, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0))
    allowed = {path: _LANDLOCK_READ_FILE for path in jail.config.read}
    allowed |= {path: _LANDLOCK_READ_FILE | _LANDLOCK_EXECUTE for path in jail.config.execute}
    for path, right in allowed.items():
        if Path(path).exists():
            opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
            rule = struct.pack("=Qi", right, opened)
            jail.call(_LANDLOCK_ADD, ctypes.c_int(ruleset), ctypes.c_int(1), rule, ctypes.c_uint32(0))
            os.close(opened)
    jail.call(_LANDLOCK_RESTRICT, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    os.close(ruleset)
    return f"ABI {abi}"


@dataclass(frozen=True)
class Machine:
    """How a kind of machine numbers its system calls."""

    audit: int
    """Its number in a filter's data."""
    calls: dict[str, int]


_MACHINES = {
    "x86_64": Machine(0xC000003E, {
        "read": 0, "write": 1, "close": 3, "fstat": 5, "poll": 7, "lseek": 8, "mmap": 9, "mprotect": 10, "munmap": 11,
        "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "pread64": 17, "readv": 19,
        "writev": 20, "access": 21, "sched_yield": 24, "mremap": 25, "madvise": 28, "nanosleep": 35, "setitimer": 38,
        "getpid": 39, "clone": 56, "exit": 60, "readlink": 89, "gettimeofday": 96, "getrusage": 98, "getuid": 102,
        "getgid": 104, "geteuid": 107, "getegid": 108, "sigaltstack": 131, "prctl": 157, "arch_prctl": 158,
        "gettid": 186, "time": 201, "futex": 202, "sched_getaffinity": 204, "set_tid_address": 218,
        "clock_gettime": 228, "clock_getres": 229, "clock_nanosleep": 230, "exit_group": 231, "tgkill": 234,
        "openat": 257, "newfstatat": 262, "readlinkat": 267, "ppoll": 271, "set_robust_list": 273, "prlimit64": 302,
        "getrandom": 318, "execveat": 322, "membarrier": 324, "statx": 332, "rseq": 334, "clone3": 435,
    }),
    "aarch64": Machine(0xC00000B7, {
        "openat": 56, "close": 57, "lseek": 62, "read": 63, "write": 64, "readv": 65, "writev": 66, "pread64": 67,
        "ppoll": 73, "readlinkat": 78, "newfstatat": 79, "fstat": 80, "exit": 93, "exit_group": 94,
        "set_tid_address": 96, "futex": 98, "set_robust_list": 99, "nanosleep": 101, "setitimer": 103,
        "clock_gettime": 113, "clock_getres": 114, "clock_nanosleep": 115, "sched_getaffinity": 123,
        "sched_yield": 124, "tgkill": 131, "sigaltstack": 132, "rt_sigaction": 134, "rt_sigprocmask": 135,
        "rt_sigreturn": 139, "getrusage": 165, "prctl": 167, "gettimeofday": 169, "getpid": 172, "getuid": 174,
        "geteuid": 175, "getgid": 176, "getegid": 177, "gettid": 178, "brk": 214, "munmap": 215, "mremap": 216,
        "clone": 220, "mmap": 222, "mprotect": 226, "madvise": 233, "prlimit64": 261, "getrandom": 278,
        "execveat": 281, "membarrier": 283, "statx": 291, "rseq": 293, "clone3": 435,
    }),
}  # fmt: skip

_TO_START = ("openat", "access", "readlink", "readlinkat", "arch_prctl", "execveat", "clone")
"""Calls that only a target needs that is executed: it is linked after the filter is laid, and may have threads."""

_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_LOAD, _EQUAL, _AND, _RETURN = 0x20, 0x15, 0x54, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16

Condition = tuple[int, int, int]
"""Number of an argument, mask of its low half, and what must remain; nothing outside the mask's half is looked at."""


def conditions(execs: bool) -> dict[str, Sequence[Condition]]:
    """What must hold of the arguments of calls that are allowed with some only."""
    whole = 0xFFFFFFFF
    own: dict[str, Sequence[Condition]] = {
        "tgkill": [(0, whole, os.getpid())],
        "prctl": [(0, whole, _PR_SET_NAME)],
        "prlimit64": [(0, whole, 0), (2, whole, 0), (-2, whole, 0)],
        "clone": [(0, _CLONE_THREAD, _CLONE_THREAD)],
        "execveat": [(0, whole, _TARGET_FD), (4, whole, _AT_EMPTY_PATH)],
    }
    if not execs:
        own |= {"mmap": [(2, _PROT_EXEC, 0)], "mprotect": [(2, _PROT_EXEC, 0)]}
    return own


def filter_of(machine: Machine, execs: bool) -> bytes:
    """The seccomp program: calls of the list are allowed, all others fail with EPERM."""
    own = conditions(execs)
    code = [
        _step(_LOAD, _ARCHITECTURE_AT),
        _step(_EQUAL, machine.audit, 1, 0),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER_AT),
        _step(_EQUAL, machine.calls["clone3"], 0, 1),
        _step(_RETURN, _ERRNO | _ENOSYS),  # libraries then try clone, whose flags a filter can see
    ]
    for name, number in machine.calls.items():
        if name != "clone3" and (execs or name not in _TO_START):
            body = [step for condition in own.get(name, ()) for step in _check(condition)]
            body.append(_step(_RETURN, _ALLOW))
            code += [_step(_EQUAL, number, 0, len(body)), *body]
    code.append(_step(_RETURN, _ERRNO | _EPERM))
    return b"".join(code)


def _step(operation: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
    return struct.pack("=HBBI", operation, then, otherwise, value)


def _check(condition: Condition) -> list[bytes]:
    number, mask, value = condition
    at = _ARGUMENTS_AT + 8 * number if number >= 0 else _ARGUMENTS_AT - 8 * number + 4  # negative: the high half
    return [_step(_LOAD, at), _step(_AND, mask), _step(_EQUAL, value, 1, 0), _step(_RETURN, _ERRNO | _EPERM)]


def seccomp(jail: Jail, execs: bool) -> str:
    """Allow the listed system calls only, for good.

    Raises:
        ValueError: this kind of machine is not known here.
    """
    machine = _MACHINES.get(platform.machine())
    if machine is None or struct.calcsize("P") != 8:
        raise ValueError("no filter for this machine")
    code = filter_of(machine, execs)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer))
    return jail.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(2), ctypes.c_char_p(program))


def address_space() -> int:
    """Bytes of address space that this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def lock(jail: Jail, memory: int | None, execs: bool) -> None:
    """Lay all layers, in the order in which none bars the next."""
    jail.lay("user", lambda: become(jail))
    jail.lay("death with parent", lambda: tie_to_parent(jail))
    jail.lay("no new privileges", lambda: jail.prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1)))
    jail.lay("limits", lambda: limit(jail, memory))
    jail.lay("landlock", lambda: landlock(jail))
    jail.lay("seccomp", lambda: seccomp(jail, execs))
    if jail.config.report:
        os.write(1, json.dumps(jail.layers).encode() + b"\n")


def run_script(jail: Jail, path: str, arguments: Sequence[str]) -> None:
    """Become a Python program, in this process."""
    code: CodeType = compile(Path(path).read_bytes(), path, "exec")
    for name in jail.config.imports:
        __import__(name)
    more = jail.config.memory
    memory = None if more is None else more + address_space()
    close_files(_TARGET_FD)
    sys.argv = [path, *arguments]
    lock(jail, memory, execs=False)
    exec(code, {"__name__": "__main__", "__builtins__": __builtins__})


def execute(jail: Jail, path: str, arguments: Sequence[str]) -> None:
    """Become another program, by exec of a file opened beforehand: no folder above it need be open to the new user."""
    close_files(_TARGET_FD)
    opened = os.open(path, os.O_PATH)
    if not jail.config.report:
        nothing = os.open("/dev/null", os.O_WRONLY)
        os.dup2(nothing, 2)  # what the target writes there is for nobody
        os.close(nothing)
    machine = _MACHINES.get(platform.machine())
    words = [path.encode(), *(argument.encode() for argument in arguments)]
    vector = (ctypes.c_char_p * (len(words) + 1))(*words, None)
    empty = (ctypes.c_char_p * 1)(None)
    lock(jail, jail.config.memory, execs=True)
    if machine is None:
        os.execve(path, words, {})
        return
    flags = ctypes.c_int(_AT_EMPTY_PATH)
    jail.call(machine.calls["execveat"], ctypes.c_int(opened), b"", vector, empty, flags)


def main() -> None:
    """Lock in, then become the target."""
    _, config, target, *arguments = sys.argv
    jail = Jail(Config(**json.loads(config)))
    os.chdir("/")
    os.umask(0o077)
    if os.getpid() != os.getsid(0):
        os.setsid()
    become_target = run_script if target.endswith(".py") else execute
    become_target(jail, target, arguments)


if __name__ == "__main__":
    main()
