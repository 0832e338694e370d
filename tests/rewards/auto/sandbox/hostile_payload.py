"""What code that wants out of its jail would try; prints what came of each attempt. Run by test_jail."""

import ctypes
import json
import mmap
import os
import resource
import signal
import socket
import sys
from pathlib import Path

PTRACE, IO_URING, BPF, MOUNT, UNSHARE = {
    "x86_64": (101, 425, 321, 165, 272),
    "aarch64": (117, 425, 280, 40, 97),
}[sys.implementation._multiarch.partition("-")[0]]

libc = ctypes.CDLL(None, use_errno=True)


def call(number, *arguments):
    if libc.syscall(ctypes.c_long(number), *(ctypes.c_long(a) for a in arguments)) < 0:
        raise OSError(ctypes.get_errno(), "failed")


def write_here():
    Path("escaped").write_text("x")


def read(path):
    with Path(path).open() as file:
        file.read(1)


ATTEMPTS = {
    "socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
    "unix socket": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM),
    "socket pair": socket.socketpair,
    "fork": os.fork,
    "read passwd": lambda: read("/etc/passwd"),
    "read environ": lambda: read("/proc/self/environ"),
    "read parent's environ": lambda: read(f"/proc/{os.getppid()}/environ"),
    "list root": lambda: list(Path("/").iterdir()),
    "write": write_here,
    "write to tmp": lambda: os.open("/tmp/escaped", os.O_WRONLY | os.O_CREAT),
    "remove": lambda: Path(sys.argv[1]).unlink(),
    "ptrace": lambda: call(PTRACE, 0, 0, 0, 0),
    "io_uring": lambda: call(IO_URING, 1, 0),
    "bpf": lambda: call(BPF, 0, 0, 0),
    "mount": lambda: call(MOUNT, 0, 0, 0, 0, 0),
    "unshare": lambda: call(UNSHARE, 0x10000000),
    "memfd": lambda: os.memfd_create("x"),
    "execve": lambda: os.execve("/bin/sh", ["sh", "-c", "true"], {}),
    "exec of a file": lambda: os.execve(0, ["sh"], {}),
    "kill parent": lambda: os.kill(os.getppid(), 0),
    "signal a group": lambda: os.killpg(0, signal.SIGCONT),
    "become root": lambda: os.setuid(0),
    "raise a limit": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096)),
    "a left-open file": lambda: os.fstat(int(sys.argv[2])),
    "huge memory": lambda: bytearray(4 << 30),
    "executable memory": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC),
}


def outcome(attempt):
    try:
        attempt()
    except (OSError, MemoryError, ValueError) as error:
        return type(error).__name__
    return "DONE"


if __name__ == "__main__" and len(sys.argv) > 1:
    found = {name: outcome(attempt) for name, attempt in ATTEMPTS.items()}
    found |= {"environment": dict(os.environ), "user": os.getuid()}
    os.write(1, json.dumps(found).encode())
