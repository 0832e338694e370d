"""Reward programs for tests of what runs them, written down with the columns that they read."""

from envs.schema import COLUMNS
from rewards.auto.program import Program


def program(source: str, *columns: str, open_groups: tuple[str, ...] = ()) -> Program:
    """The source as if it had been admitted."""
    used = tuple(name for name in COLUMNS if name in columns)
    assert len(used) == len(columns)
    return Program(source=source, columns=used, open_groups=frozenset(open_groups))


def body(lines: str, *columns: str, open_groups: tuple[str, ...] = ()) -> Program:
    """A program whose function has these lines."""
    indented = "\n".join("    " + line for line in lines.strip().splitlines())
    return program(f"def reward(obs, prev_obs, action, info):\n{indented}\n", *columns, open_groups=open_groups)
