r"""Admits source code as a reward program, or refuses it with place, reason and remedy; nothing of it is run.

The text is looked at first, for hostile input can end CPython's parser and the process with it. Then a process that is
thrown away parses it and holds every part of the syntax tree against lists of what is allowed (``child``). This keeps
mistakes and known escapes out; it is not what contains a program that runs (``rewards.auto.sandbox``).

Example:
    >>> admit("def reward(obs, prev_obs, action, info):\n    return obs['hp'] - prev_obs['hp']\n").columns
    ('obs.hp', 'prev_obs.hp')
"""

from __future__ import annotations

import atexit
import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from envs.schema import COLUMNS, nearest_names
from rewards.auto.program import MAX_COMPONENTS, REJECTIONS, Program, ProgramRejectedError, Rejection, read_as

MAX_BYTES = 16 * 1024
MAX_LINES = 600
MAX_LINE_CHARS = 400
MAX_BRACKETS = 40
"""Brackets open at once."""
MAX_INDENT = 100
"""Characters of white space that a line may begin with."""
MAX_UNARY = 20
"""Operators like ``-`` and ``not`` in a row."""
CHECK_S = 10.0
"""Seconds that judging a program may take; it needs 0.003, and 0.05 more the first time."""

_MAX_ADMITTED = 1024
"""Programs that are remembered: a search meets each of its own many times."""
# As a module, whose compiled form is kept; behind the standard library on the path, so that nothing here shadows it.
_RUN_JUDGE = "import sys; sys.path.append(sys.argv[1]); from language import child; child.main()"
_GROUPS = ("obs", "prev_obs", "info")
_FIELDS = {group: [name.partition(".")[2] for name in COLUMNS if name.startswith(f"{group}.")] for group in _GROUPS}
_COOKIE = re.compile(r"^[ \t]*#.*?coding[:=][ \t]*([-\w.]+)")
_UNARY_RUN = re.compile(rf"(?:(?:[-+~]|\bnot\b)[\s\\]*){{{MAX_UNARY + 1}}}")
_PLAIN_TEXT = re.compile(r"""(['"])[^'"{}\\]*\1(?!['"])""")
_TOKEN = re.compile(
    r"""(?P<comment>\#[^\n]*)
    |(?P<prefix>[A-Za-z]{0,2})(?P<text>
        \"\"\"(?:\\.|[^\\])*?(?:\"\"\"|\Z) | '''(?:\\.|[^\\])*?(?:'''|\Z) | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*')
    |(?P<open>[(\[{])|(?P<close>[)\]}])|(?P<foreign>[^\x00-\x7f])""",
    re.VERBOSE | re.DOTALL,
)


def admit(source: str | bytes) -> Program:
    """Check source code as a reward program. What was admitted before is not judged again.

    Args:
        source: of any length and kind.

    Raises:
        ProgramRejectedError: it is none; the rejection says where, why, and what to write instead.
    """
    return _admitted(_decoded(source))


@lru_cache(maxsize=_MAX_ADMITTED)
def _admitted(text: str) -> Program:
    for check_text in _TEXT_CHECKS:
        check_text(text)
    answer = JUDGE.answer({"source": text, "fields": _FIELDS, "max_components": MAX_COMPONENTS})
    if "rejection" in answer:
        raise ProgramRejectedError(_rejection(text, **answer["rejection"]))
    return Program(
        source=text,
        columns=tuple(name for name in COLUMNS if name in answer["columns"]),
        open_groups=frozenset(answer["open_groups"]),
        components=answer["components"],
    )


def admit_file(path: Path) -> Program:
    """Check a file as a reward program.

    Raises:
        ProgramRejectedError: it is none.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return admit(file.read(MAX_BYTES + 1))


def _refuse(code: str, reason: str, text: str = "", at: int | None = None) -> ProgramRejectedError:
    """The error for position ``at`` of the text."""
    if at is None:
        return ProgramRejectedError(_rejection(text, code, reason))
    before = text[:at]
    return ProgramRejectedError(
        _rejection(text, code, reason, line=before.count("\n") + 1, column=at - before.rfind("\n"))
    )


def _rejection(
    text: str,
    code: str,
    reason: str,
    line: int | None = None,
    column: int | None = None,
    hint: str = "",
    unknown: list[str] | None = None,
) -> Rejection:
    lines = text.split("\n")
    place = lines[line - 1][:MAX_LINE_CHARS] if line is not None and 1 <= line <= len(lines) else ""
    if unknown is not None:
        hint = _where_instead(*unknown)
    return Rejection(
        code=code, reason=reason, line=line, column=column, source_line=place, hint=hint or REJECTIONS[code].instead
    )


def _where_instead(group: str, name: str) -> str:
    """Where else a field of this name is, or which ones look like it."""
    elsewhere = [read_as(f"{other}.{name}") for other in _GROUPS if f"{other}.{name}" in COLUMNS]
    if name == "action":
        elsewhere = ["action, the parameter"]
    if elsewhere:
        return f"it is {' and '.join(elsewhere)}"
    return "nearest: " + ", ".join(read_as(column) for column in nearest_names(f"{group}.{name}"))


def _decoded(source: str | bytes) -> str:
    if len(source) > MAX_BYTES:
        raise _refuse("E01", f"the source has more than {MAX_BYTES} bytes")
    try:
        raw = source.encode() if isinstance(source, str) else source
        text = raw.decode()
    except (UnicodeEncodeError, UnicodeDecodeError) as error:
        before = source[: error.start]
        line = 1 + (before.count("\n") if isinstance(before, str) else before.count(b"\n"))
        raise ProgramRejectedError(_rejection("", "E02", "the source is not UTF-8", line=line)) from error
    if len(raw) > MAX_BYTES:
        raise _refuse("E01", f"the source has more than {MAX_BYTES} bytes")
    return _normalised(text)


def _normalised(text: str) -> str:
    """Without what editors put into files: a mark of the byte order, and carriage returns before all newlines."""
    text = text.removeprefix("\ufeff")
    if "\r" in text and text.count("\r\n") == text.count("\n"):
        text = text.replace("\r\n", "\n")
    return text


def _check_characters(text: str) -> None:
    for at, character in enumerate(text):
        if character in "\n\t" or " " <= character <= "~":
            continue
        category = unicodedata.category(character)
        if category[0] == "C" or category in ("Zl", "Zp"):
            name = "a carriage return: end lines with \\n alone" if character == "\r" else f"U+{ord(character):04X}"
            raise _refuse("E03", f"control or invisible character {name}", text, at)


def _check_cookie(text: str) -> None:
    for number, line in enumerate(text.split("\n")[:2], start=1):
        found = _COOKIE.match(line)
        if found and found[1].lower().replace("_", "-") not in ("utf-8", "utf8"):
            reason = f"the source declares the encoding {found[1][:40]!r}"
            raise ProgramRejectedError(_rejection(text, "E02", reason, line=number, column=found.start(1) + 1))


def _check_lines(text: str) -> None:
    lines = text.split("\n")
    if len(lines) > MAX_LINES:
        reason = f"the source has more than {MAX_LINES} lines"
        raise ProgramRejectedError(_rejection(text, "E01", reason, line=MAX_LINES + 1))
    for number, line in enumerate(lines, start=1):
        if len(line) > MAX_LINE_CHARS:
            raise ProgramRejectedError(
                _rejection(text, "E01", f"the line has more than {MAX_LINE_CHARS} characters", line=number)
            )
        if len(line) - len(line.lstrip(" \t")) > MAX_INDENT:
            raise ProgramRejectedError(
                _rejection(text, "E04", f"the line is indented by more than {MAX_INDENT}", line=number)
            )


def _blank(token: re.Match[str]) -> str:
    """The same length without comments and texts; f-strings hold code and stay."""
    if token["comment"] or (token["text"] and "f" not in token["prefix"].lower()):
        return "x" * len(token[0])
    return token[0]


def _check_unary(text: str) -> None:
    found = _UNARY_RUN.search(_TOKEN.sub(_blank, text))
    if found:
        raise _refuse("E04", f"more than {MAX_UNARY} operators in a row", text, found.start())


def _check_tokens(text: str) -> None:
    """Bounds brackets, in and outside texts, and refuses letters outside ASCII where they are code."""
    depth = 0
    for token in _TOKEN.finditer(text):
        if token["open"]:
            depth += 1
        elif token["close"]:
            depth = max(depth - 1, 0)
        elif token["foreign"]:
            raise _refuse("E24", f"{token[0]!r} is no ASCII character", text, token.start())
        elif token["text"]:
            _check_text_token(text, token)
        if depth > MAX_BRACKETS:
            raise _refuse("E04", f"more than {MAX_BRACKETS} brackets are open at once", text, token.start())


def _check_text_token(text: str, token: re.Match[str]) -> None:
    if "f" not in token["prefix"].lower():
        return
    if not _code_within(token["text"]).isascii():
        reason = "the code in an f-string holds characters that are no ASCII"
        raise _refuse("E24", reason, text, token.start())
    if sum(character in "([{" for character in token["text"]) > MAX_BRACKETS:
        raise _refuse("E04", f"more than {MAX_BRACKETS} brackets in one f-string", text, token.start())


def _code_within(text: str) -> str:
    """What stands in the braces of an f-string, without plain texts; all the rest where they are not plain."""
    code = ""
    at = depth = 0
    while at < len(text):
        if depth and text[at] in "'\"":
            plain = _PLAIN_TEXT.match(text, at)
            if plain is None:
                return code + text[at:]
            at = plain.end()
            continue
        if not depth and text.startswith(("{{", "}}"), at):
            at += 2
            continue
        depth += {"{": 1, "}": -1 if depth else 0}.get(text[at], 0)
        code += text[at] if depth else ""
        at += 1
    return code


_TEXT_CHECKS: tuple[Callable[[str], None], ...] = (
    _check_characters,
    _check_cookie,
    _check_lines,
    _check_unary,
    _check_tokens,
)


class Judge:
    """Asks the process in which ``child`` judges programs: started when it is needed, and anew where it has ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        """The process that started it: after a fork both would read from one pipe."""
        self._is_idle = True
        """Whether it waits for a request: where asking was broken off, its answer still comes."""

    @property
    def process(self) -> int | None:
        """Number of the process; None where there is none."""
        return None if self._process is None else self._process.pid

    def answer(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """What it says of a program; both as ``child`` describes them.

        Raises:
            ProgramRejectedError: judging it took too long, or ended the fork that did.
        """
        with self._lock:
            try:
                ended = json.loads(self._asked(json.dumps(request).encode() + b"\n", time.monotonic() + CHECK_S))
                status, answer = ended["status"], json.loads(ended["answer"]) if ended["status"] == 0 else {}
            except TimeoutError as error:
                self.close()
                raise _refuse("E06", f"parsing took more than {CHECK_S:g} s") from error
            except (OSError, ValueError, KeyError, TypeError) as error:
                self.close()
                raise _refuse("E06", "the parser gave no answer") from error
        if status:
            raise _refuse("E06", f"the parser ended with status {status}")
        return answer

    def _asked(self, message: bytes, deadline: float) -> bytes:
        """The line that answers a line.

        Raises:
            TimeoutError: it is not there by the deadline.
            OSError: the process has ended.
        """
        process = self._started()
        self._is_idle = False
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(message)
        answer, source = b"", process.stdout.fileno()
        while not answer.endswith(b"\n"):
            if not select.select([source], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError
            piece = os.read(source, 1 << 16)
            if not piece:
                raise BrokenPipeError
            answer += piece
        self._is_idle = True
        return answer

    def _started(self) -> subprocess.Popen[bytes]:
        if self._owner != os.getpid():
            self._process, self._owner = None, os.getpid()
        if self._process is None or not self._is_idle or self._process.poll() is not None:
            self.close()
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _RUN_JUDGE, str(Path(__file__).parents[1])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                env={},
                cwd="/",
                start_new_session=True,
            )
        return self._process

    def close(self) -> None:
        """End the process, and the fork that it waits for; harmless when done twice."""
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
        process.wait()


JUDGE = Judge()
"""Of this process."""

atexit.register(JUDGE.close)
