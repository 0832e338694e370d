"""Data sets of made-up play, which remember what was written into them."""

import numpy as np

from envs.data import EndStatus, EpisodeSeeds
from envs.datasets import Manifest, action_table
from envs.datasets.manifest import FieldType, recorded_columns

OBS = {"glyphs": FieldType(dtype="int16", shape=(2, 3)), "blstats": FieldType(dtype="int64", shape=(4,))}
ACTIONS = action_table(["north", "up", "wait"], [107, 107, 46])
"""Two of them press the same key."""


def manifest_of(obs=OBS, **changes):
    """Of one task."""
    made = Manifest(
        tasks=({"id": "Task-v0"},),
        actions=ACTIONS,
        columns=recorded_columns(obs),
        policies=({"kind": "random"},),
    )
    return made.replace(**changes)


class Played:
    """Writes made-up episodes into a shard and remembers what it wrote."""

    def __init__(self, shard, seed=0, obs=OBS):
        self.shard, self.rng, self.kinds = shard, np.random.default_rng(seed), obs
        self.obs = {key: [] for key in obs}
        self.last = {key: [] for key in obs}
        self.actions, self.rewards, self.log_probs, self.lengths, self.seeds = [], [], [], [], []

    def drawn(self):
        """One observation; any bits but those of numbers that are not finite."""
        found = {}
        for key, kind in self.kinds.items():
            dtype = np.dtype(kind.dtype)
            if dtype.kind == "f":
                found[key] = self.rng.standard_normal(kind.shape).astype(dtype)
            elif dtype.kind == "b":
                found[key] = np.asarray(self.rng.random(kind.shape) < 0.5)
            else:
                limits = np.iinfo(dtype)
                found[key] = self.rng.integers(limits.min, limits.max, kind.shape, dtype, endpoint=True)
        return found

    def episode(self, length, *, finished=True, ended=True):
        """So many steps; not finished: left by the recorder; not ended: still running."""
        seeds = EpisodeSeeds(*self.rng.integers(0, 1 << 30, 3).tolist())
        self.shard.begin(seeds)
        for t in range(length):
            over = finished and t == length - 1
            obs, action, reward = self.drawn(), int(self.rng.integers(0, 3)), float(self.rng.integers(0, 5))
            log_prob = None if action == 2 else -float(self.rng.random())
            self.shard.step(
                action=action,
                log_prob=log_prob,
                policy=0,
                reward=reward,
                terminated=over,
                truncated=False,
                end_status=EndStatus.DEATH if over else EndStatus.RUNNING,
                obs=obs,
            )
            self.actions.append(action)
            self.rewards.append(reward)
            self.log_probs.append(np.nan if log_prob is None else log_prob)
            for key, value in obs.items():
                self.obs[key].append(value)
        self.lengths.append(length)
        self.seeds.append(seeds)
        if ended:
            last = self.drawn()
            self.shard.end(last, digest=length)
            for key, value in last.items():
                self.last[key].append(value)
        return self


def files_in(data):
    """``{path: content}`` of every file of columns."""
    return {path: path.read_bytes() for path in sorted(data.glob("shards/*/*.arrow"))}
