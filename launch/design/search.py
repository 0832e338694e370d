"""The search for a reward program: propose, criticise, train, analyse, and again.

After Auto MC-Reward (Li et al. 2023, arXiv 2312.09238) and Eureka (Ma et al. 2023, arXiv 2310.12931)::

    recorded play --> analyzer --> brief --> designer --> K proposals --> critic --> the accepted
         ^                                                                              | Ray, side by side
         +---- episodes, components, failures <---- a short training run each <---------+

Round after round (``launch.design.rounds``); then the best on seeds A is chosen, and reported on seeds B: fresh
training seeds, and episodes that had no part in choosing (``launch.design.reporting``). What each program came to is
that of its own run, at its end; a run that broke says nothing about its program. Every step is in the journal
(``launch.design.journal``): a search that was killed goes on.
"""

from __future__ import annotations

from typing import Any

from launch.design.parts import SearchParts
from launch.design.reporting import choose, report
from launch.design.rounds import Rounds
from launch.design.summary import summary
from launch.design.trials import record_random_play

_PLAY_EPISODES = 20
"""Of random play, for the first round."""


def run(parts: SearchParts) -> dict[str, Any]:
    """Do what the journal does not hold yet; Ray must be up.

    Returns:
        The summary (``launch.design.summary``).

    Raises:
        RunError: some of its runs were stopped.
        DesignerError: no proposals can be had.
    """
    journal = parts.journal
    ended = False
    try:
        journal.once("play", "", lambda: _recorded_play(parts))
        if ("chosen", "") not in journal:
            rounds = Rounds(parts)
            for number in range(1, parts.config.rounds + 1):
                rounds.run(number)
        chosen = choose(parts)
        if chosen is not None:
            report(parts, chosen)
        ended = True
    finally:  # what was spent since the last step counts, too
        sittings = journal.of_kind("sitting")
        journal.add("sitting", str(len(sittings)), "ended" if ended else "cut")
        journal.close()
    return summary(parts)


def _recorded_play(parts: SearchParts) -> dict[str, Any]:
    parts.say(f"recording {_PLAY_EPISODES} episodes of random play")
    files, steps = record_random_play(parts.train, parts.folder, _PLAY_EPISODES)
    return {"records": [str(file.relative_to(parts.folder)) for file in files], "steps": steps}
