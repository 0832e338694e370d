"""HERON under anybody's training loop: it learns from the steps that it is shown, between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from envs.data import RewardPart, Rollout
from envs.protocols import GamesSpec, State
from rewards.heron.config import TreeConfig
from rewards.heron.cutter import SegmentCutter
from rewards.heron.trainer import HeronTrainer


class OnlineHeron:
    """Part ``heron``, whose model learns from what is played, a few gradient steps at a time.

        heron = OnlineHeron(TreeConfig(ranking=("goal = info.terminated @ 0", "-action[0] ** 2")), spec, 400, seed=1)
        venv = RewardVecEnvWrapper(venv, heron, on_step=heron.observe)

    Rollouts may be of one step, as Stable-Baselines3's are. Scoring has no memory of the episode: a replay buffer can
    score what is stored anew whenever ``version`` rises.

    Args:
        config: ranking, tree, reward model and length of segments.
        spec: the games' observations and actions.
        update_steps: environment steps, of all games together, between two updates of the model.
        seed: of the model's initial weights and of the pairs that it learns from.

    Raises:
        ValueError: the ranking cannot be read, the model cannot read the games, or the configuration asks for what only
            a run has: other judges than the tree, or the policy's encoder.

    Attributes:
        reward: what scores.
        trainer: what learns.
    """

    def __init__(self, config: TreeConfig, spec: GamesSpec, update_steps: int, seed: int) -> None:
        if update_steps < 1:
            raise ValueError(f"update_steps is {update_steps}; allowed are numbers from 1")
        if config.judges.sources != ("tree",):
            raise ValueError(f"judges.sources is {', '.join(config.judges.sources)}; here only the tree can be asked")
        if config.model.encoder:
            raise ValueError(
                "model.encoder needs a run's policy network, and its reward drifts with it between versions, so that "
                "stored steps could not be scored anew; leave it off here"
            )
        table = config.table()
        self.reward = config.build(spec, None)
        self.trainer = HeronTrainer(config, table, seed)
        self._cutter = SegmentCutter(self.reward.inputs, table, config.segment_steps)
        self._update_steps = update_steps
        self._steps = 0
        """Since the last update."""
        self._uncut: State | None = None

    @property
    def part_names(self) -> tuple[str, ...]:
        """``heron`` alone."""
        return self.reward.part_names

    @property
    def version(self) -> int:
        """That of the model; 0 until there is one."""
        return self.reward.version

    def initial_state(self, num_games: int) -> State:
        """No memory."""
        return self.reward.initial_state(num_games)

    def score(self, rollout: Rollout, state: State) -> tuple[Mapping[str, RewardPart], State]:
        """The newest version's reward of each step; nothing is valid before the first."""
        return self.reward.score(rollout, state)

    def observe(self, rollout: Rollout, parts: Mapping[str, RewardPart]) -> None:
        """Learn from steps that were played; those of one game must come in the order in which they were played.

        Args:
            rollout: T steps of always the same B games.
            parts: what they were paid, which does not matter here.
        """
        state = self._cutter.initial_state(rollout.num_games) if self._uncut is None else self._uncut
        segments, self._uncut = self._cutter.cut(rollout, state)
        if segments is not None:
            self.trainer.add(segments)
        self._steps += rollout.env_reward.size
        if self._steps >= self._update_steps:
            self._steps %= self._update_steps
            scorer = self.trainer.update()
            if scorer is not None:
                self.reward.take(scorer)

    def state_dict(self) -> State:
        """Everything learned, and the steps that are in no segment yet."""
        return {
            "reward": self.reward.state_dict(),
            "trainer": self.trainer.state_dict(),
            "uncut": self._uncut,
            "steps": self._steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
        self.reward.load_state_dict(state["reward"])
        self.trainer.load_state_dict(state["trainer"])
        self._uncut = state["uncut"]
        self._steps = int(state["steps"])
