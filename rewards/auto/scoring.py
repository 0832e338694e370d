"""What a program would have paid for recorded play."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from envs.recording import EpisodeRecord
from rewards.auto.config import ContainmentConfig
from rewards.auto.program import Program
from rewards.auto.sandbox.contained import ContainedProgram, run_in_batches
from rewards.auto.transitions import transitions_of


def score_episodes(
    program: Program, episodes: Sequence[EpisodeRecord], containment: ContainmentConfig
) -> list[dict[str, np.ndarray]]:
    """Raw values of each component, episode by episode.

    Args:
        program: it runs in containment, in a process of its own that ends with this call.
        episodes: recorded play.
        containment: engine and limits.

    Returns:
        Of each episode ``{component: float64 [T]}``; nan where the program has no answer.

    Raises:
        EngineError: it has no answer for a batch of it.
        ValueError: the episodes lack a column that it reads.
    """
    columns, num = transitions_of(episodes, program.needed_columns)
    contained = ContainedProgram(program, containment)
    try:
        values = run_in_batches(contained, columns, num)
    finally:
        contained.close()
    ends = np.cumsum([record.num_steps for record in episodes])[:-1]
    shown = {name: np.where(values.valid, value, np.nan) for name, value in values.components.items()}
    pieces = {name: np.split(value, ends) for name, value in shown.items()}
    return [{name: parts[i] for name, parts in pieces.items()} for i in range(len(episodes))]
