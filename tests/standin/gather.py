"""Writes ``captions.json``: what the games say to a player who acts at random, for the stand-in to learn by heart.

    python tests/standin/gather.py

Needed only when the captions' canonical form or the lexicon has changed; the file is kept beside this one.
"""

import json
from collections import Counter
from pathlib import Path

import numpy as np

from envs.captions import canonical_of_raw
from envs.seeding import TrainingSeeds
from envs.tasks import GamesConfig, make
from rewards.labels.lexicon import Lexicon
from rewards.labels.questions import VALUES

FILE = Path(__file__).with_name("captions.json")
TASKS = {
    "MiniHack-KeyRoom-S5-v0": 100,
    "MiniHack-Room-Ultimate-15x15-v0": 7,
    "MiniHack-Corridor-R5-v0": 5,
    "MiniHack-LockedDoor-v0": 3,
}
"""``{task: captions of each verdict, the most frequent first}``; KeyRoom's are kept whole, for runs on it."""
NUM_GAMES = 32
STEPS = 200_000
LONGEST = 120
"""Characters of a caption, except KeyRoom's."""


def play(task: str) -> Counter[str]:
    """How often each caption comes in ``STEPS`` random steps."""
    games = make(GamesConfig(task=task, obs_keys=("blstats",)), NUM_GAMES, TrainingSeeds(7, 0, NUM_GAMES))
    games.reset()
    actions = np.random.default_rng(7)
    counts: Counter[str] = Counter()
    for _ in range(STEPS // NUM_GAMES):
        step = games.step(actions.integers(games.spec.num_actions, size=NUM_GAMES))
        counts.update(canonical_of_raw(message) for message in step.messages or [])
    games.close()
    del counts[""]
    return counts


def main() -> None:
    """Play every task, keep what the lexicon judges."""
    lexicon = Lexicon.packaged()
    kept: dict[str, None] = {}
    for task, most in TASKS.items():
        longest = LONGEST if kept else None
        counts = play(task)
        texts = sorted(counts, key=lambda text: (-counts[text], text))
        for verdict in VALUES:
            known = [t for t in texts if lexicon.judge(t) == verdict and (longest is None or len(t) <= longest)]
            kept |= dict.fromkeys(known[:most])
    FILE.write_text(json.dumps(list(kept), indent=1) + "\n")
    print(f"{len(kept)} captions, {dict(Counter(lexicon.judge(text) for text in kept))}")


if __name__ == "__main__":
    main()
