"""The layers between a reward program's process and the machine, tried by code that wants through them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rewards.auto.config import ContainmentConfig
from rewards.auto.sandbox import jail_exec
from rewards.auto.sandbox.engine import Limits
from rewards.auto.sandbox.jail import NOBODY, IsolationError, Jail, Target, check_level, describe, find_jail, level_of
from rewards.auto.sandbox.monty import build_engine, isolation_line, monty_target

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the layers are those of Linux")

PAYLOAD = Path(__file__).with_name("hostile_payload.py")
IMPORTS = ("ctypes", "json", "mmap", "os", "pathlib", "resource", "signal", "socket")
ALL = {"user": "65534", "no new privileges": "on", "limits": "on", "landlock": "ABI 7", "seccomp": "on"}


def run(jail: Jail, *arguments: str, seconds: float = 20.0) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*jail.command(), *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False
    )


def needs(jail: Jail, *layers: str) -> None:
    """Skip, by name, what this machine cannot show."""
    off = [name for name in layers if jail.layers[name] == "off"]
    if off:
        pytest.skip(f"this machine does not offer {', '.join(off)}")


def attempts(jail: Jail, arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """What came of each attempt of the payload, which is handed a secret and an open file."""
    victim = tmp_path / "victim"
    victim.write_text("still here")
    monkeypatch.setenv("A_SECRET", "hunter2")
    with victim.open() as opened:
        ran = subprocess.run(
            [*jail.command(), *arguments, str(victim), str(opened.fileno())],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            pass_fds=[opened.fileno()],
            env={"A_SECRET": "hunter2"} if jail.target.is_script else {},
            timeout=30,
            check=False,
        )
    assert ran.returncode == 0, ran.stderr.decode()
    assert victim.read_text() == "still here"
    return json.loads(ran.stdout)


def script_jail() -> Jail:
    jail = find_jail(Target(path=str(PAYLOAD), memory=64 << 20, imports=IMPORTS))  # it does nothing when probed
    needs(jail, "landlock", "seccomp", "limits")
    return jail


def test_hostile_code_in_the_worker_s_own_process_gets_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = attempts(script_jail(), (), tmp_path, monkeypatch)
    assert found.pop("user") == (NOBODY if os.geteuid() == 0 else os.geteuid())
    found.pop("environment")  # Python's own copy from before; the engine starts it with none
    assert "DONE" not in found.values(), found
    assert found.pop("huge memory") == "MemoryError"
    assert set(found.values()) <= {"PermissionError", "OSError", "ValueError"}, found


HOSTILE_SHELL = {
    "fork": "(:)",
    "exec": "exec /bin/true",
    "write": ": > {tmp}/escaped",
    "overwrite": ": > {tmp}/victim",
    "read passwd": "read x < /etc/passwd",
    "read environ": ": < /proc/self/environ",
    "read a file of ours": "read x < {tmp}/victim",
    "kill parent": "kill -0 $PPID",
    "raise a limit": "ulimit -n 4096",
}


@pytest.mark.parametrize("name", HOSTILE_SHELL)
def test_a_hostile_program_that_is_executed_gets_nowhere(tmp_path: Path, name: str) -> None:
    jail = find_jail(Target(path=str(Path("/bin/sh").resolve()), probe=("-c", ":")))
    needs(jail, "landlock", "seccomp", "limits")
    (tmp_path / "victim").write_text("still here\n")
    lines = HOSTILE_SHELL[name].format(tmp=tmp_path)
    assert subprocess.run(["/bin/sh", "-c", lines], check=False).returncode == 0, "it works where there is no jail"
    (tmp_path / "escaped").unlink(missing_ok=True)
    (tmp_path / "victim").write_text("still here\n")
    assert run(jail, "-c", ":").returncode == 0
    ran = run(jail, "-c", lines + " && echo DONE")
    assert b"DONE" not in ran.stdout
    assert ran.returncode != 0
    assert not (tmp_path / "escaped").exists()
    assert (tmp_path / "victim").read_text() == "still here\n"


def test_the_payload_escapes_where_there_is_no_jail(tmp_path: Path) -> None:
    """So that the two tests above can fail."""
    victim = tmp_path / "victim"
    victim.touch()
    harmless = ["socket", "unix socket", "read passwd", "read environ", "memfd", "kill parent", "list root"]
    code = f"import json, hostile_payload as h; print(json.dumps([h.outcome(h.ATTEMPTS[n]) for n in {harmless!r}]))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=PAYLOAD.parent, capture_output=True, check=True)
    assert json.loads(ran.stdout) == ["DONE"] * len(harmless)


def test_the_engine_s_process_reaches_the_most_that_the_machine_offers() -> None:
    jail = find_jail(monty_target(Limits()))
    needs(jail, "landlock", "seccomp", "limits", "no new privileges")
    assert level_of(jail.layers) == ("full" if os.geteuid() == 0 else "kernel")
    assert jail.layers["death with parent"] == "on"


def test_a_running_worker_is_as_locked_in_as_is_said() -> None:
    """By the kernel's own account of the process."""
    engine = build_engine(ContainmentConfig())
    from rewards.auto.program import Program
    from rewards.auto.sandbox.monty import MontyEngine

    assert isinstance(engine, MontyEngine)
    needs(find_jail(monty_target(Limits())), "landlock", "seccomp", "limits")
    engine.load(Program(source="def reward(obs, prev_obs, action, info):\n    return 1.0\n", columns=()))
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{engine.process}/status").read_text().splitlines())
    limits = Path(f"/proc/{engine.process}/limits").read_text()
    opened = len(list(Path(f"/proc/{engine.process}/fd").iterdir()))
    engine.close()
    assert status["Seccomp"] == "2"
    assert status["NoNewPrivs"] == "1"
    if os.geteuid() == 0:
        assert status["Uid"].split() == [str(NOBODY)] * 4
        assert status["Gid"].split() == [str(NOBODY)] * 4
        assert status["Groups"].split() == []
        assert status["CapEff"] == "0" * 16
    assert [line.split()[-3:-1] for line in limits.splitlines() if line.startswith("Max file size")] == [["0", "0"]]
    assert opened == 3


def test_a_layer_that_is_required_and_cannot_be_had_ends_the_process() -> None:
    config = json.dumps({"skip": ["landlock"], "require": ["landlock"]})
    script = str(Path(jail_exec.__file__))
    ran = subprocess.run(
        [sys.executable, "-I", "-S", "-B", script, config, str(PAYLOAD), "x", "9"], capture_output=True, check=False
    )
    assert ran.returncode == jail_exec.MISSING
    assert b"landlock" in ran.stderr
    assert not ran.stdout


def test_a_process_whose_parent_is_gone_does_not_begin() -> None:
    config = json.dumps({"parent": 1 << 22})
    script = str(Path(jail_exec.__file__))
    ran = subprocess.run([sys.executable, "-I", "-S", "-B", script, config, str(PAYLOAD), "x", "9"], check=False)
    assert ran.returncode == jail_exec.ORPHAN


def test_the_process_dies_with_ours() -> None:
    code = """
import sys, threading, time
from rewards.auto.config import ContainmentConfig
from rewards.auto.sandbox.monty import build_engine
from rewards.auto.program import Program
made = build_engine(ContainmentConfig(batch_s=60.0))
made.load(Program(source="def reward(obs, prev_obs, action, info):\\n    while True:\\n        pass\\n", columns=()))
print(made.process, flush=True)
made.evaluate({}, 1)
"""
    ours = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=Path(__file__).parents[4])
    assert ours.stdout is not None
    worker = Path("/proc", ours.stdout.readline().decode().strip())
    assert worker.exists()
    time.sleep(0.3)
    ours.send_signal(signal.SIGKILL)
    ours.wait()
    ours.stdout.close()
    deadline = time.monotonic() + 3.0
    while worker.exists() and worker.joinpath("stat").read_text().split()[2] != "Z" and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not worker.exists() or worker.joinpath("stat").read_text().split()[2] == "Z"


def fake_bubblewrap(folder: Path, line: str) -> None:
    bwrap = folder / "bwrap"
    bwrap.write_text(f"#!/bin/sh\n{line}\n")
    bwrap.chmod(0o755)


def test_bubblewrap_is_used_where_it_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_bubblewrap(tmp_path, 'while [ "$1" != "/tmp" ]; do shift; done; shift; exec "$@"')
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    jail = find_jail(Target(path=str(PAYLOAD), memory=65 << 20, imports=IMPORTS))
    assert jail.layers["bubblewrap"] == "on"
    command = jail.command()
    assert command[0] == str(tmp_path / "bwrap")
    assert {"--unshare-all", "--die-with-parent"} <= set(command)
    assert run(jail).returncode == 0


def test_bubblewrap_that_does_not_work_is_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_bubblewrap(tmp_path, "exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    jail = find_jail(Target(path=str(PAYLOAD), memory=66 << 20, imports=IMPORTS))
    assert jail.layers["bubblewrap"] == "off"
    assert "bwrap" not in " ".join(jail.command())


def test_a_target_that_cannot_be_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IsolationError, match="cannot be started"):
        find_jail(Target(path=str(tmp_path / "none")))


def test_levels_follow_from_the_layers() -> None:
    assert level_of({}) == "process"
    assert level_of(ALL) == "full"
    assert level_of({**ALL, "user": "off"}) == "kernel"
    assert level_of({**ALL, "user": "off", "bubblewrap": "on"}) == "full"
    for name in ("no new privileges", "limits", "landlock", "seccomp"):
        assert level_of({**ALL, name: "off"}) == "process"


def test_less_isolation_than_asked_for_is_refused() -> None:
    check_level(ALL, "full")
    check_level({}, "process")
    with pytest.raises(
        IsolationError, match=r"level 'process', and min_isolation is 'kernel': off are seccomp, bubble"
    ):
        check_level({**ALL, "seccomp": "off"}, "kernel")
    with pytest.raises(IsolationError, match="level 'kernel'"):
        check_level({**ALL, "user": "off"}, "full")


def test_the_level_is_said_in_one_line() -> None:
    assert describe({"seccomp": "on", "landlock": "off"}) == "isolation process (seccomp on, landlock off)"
    line = isolation_line(ContainmentConfig())
    assert line.startswith("reward programs: monty ")
    assert "\n" not in line


def test_starting_in_the_jail_is_quick() -> None:
    jail = script_jail()
    taken = []
    for _ in range(5):
        start = time.perf_counter()
        assert run(jail).returncode == 0
        taken.append(time.perf_counter() - start)
    assert min(taken) < 0.5  # 0.04 s on an idle machine


def test_every_kind_of_machine_knows_the_calls_that_conditions_are_about() -> None:
    for machine in jail_exec._MACHINES.values():
        own = jail_exec.conditions(execs=False)
        assert own.keys() <= machine.calls.keys()
        assert len(set(machine.calls.values())) == len(machine.calls)
        assert len(jail_exec.filter_of(machine, execs=True)) > len(jail_exec.filter_of(machine, execs=False))
        assert len(jail_exec.filter_of(machine, execs=True)) % 8 == 0
