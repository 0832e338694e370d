"""The process that is thrown away: a request as JSON on standard input, an answer on standard output."""

from __future__ import annotations

import json
import sys

from .answering import answered

MEMORY_BYTES = 512 << 20
CPU_S = 5


def limit() -> None:
    """Bound what this process may use."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def main() -> None:
    """Answer the request on standard input."""
    limit()
    sys.stdout.write(json.dumps(answered(json.load(sys.stdin.buffer))))
