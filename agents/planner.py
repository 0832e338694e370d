"""Acting by plans: candidates are drawn from a plan head, judged by a critic, and the best is executed for a while.

The running plan travels in the policy's memory (``recurrent_state``), so that ends, evaluation in pieces and other
processes need nothing new: zeros = no plan.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.config import PlannerConfig
from agents.heads.plan_head import PlanCondition
from agents.offline import HERO, PlanningModel
from agents.steering import Score, Steered, best_of_n, fk, num_uniforms, svdd, svdd_r
from envs.glyphs import CLASS_OF_GLYPH, GLYPH_CLASSES
from envs.protocols import GamesSpec, Noise, PolicyStep
from envs.spec import MOVES

_HAS_PLAN, _PLACE, _HP, _COLUMN, _ROW, _MOVE, _BLOCKED, _TOKENS = range(8)
"""Columns of the memory: 1 with a plan; the next action's place in it; hit points, column and row before the last
action; which of the eight moves that was, from 1, or 0; moves that did not move the hero since it came to its square,
as bits; the first of the plan's tokens."""
_BL_HP = 10
_STAIRS = GLYPH_CLASSES.index("stairs_down")


@dataclass(frozen=True, kw_only=True, slots=True)
class LoggedWindows:
    """Logged plans by which a planner knows how likely and how good plans are."""

    obs: Mapping[str, Tensor]
    """``{key: [W, ...]}``."""
    condition: Mapping[str, Tensor]
    plans: Tensor
    """int64 [W, H]."""
    critic_goal: Tensor
    """int64 [W, 2]."""
    chunk: Tensor
    """int64 [W, E]."""
    weight: Tensor
    """float32 [W]: 0 for what is no example."""


class PlanningPolicy:
    """Plans, executes the plan's beginning, and plans again.

    Args:
        model: what was learned from logged play.
        config: how plans are made.
        spec: of the games.
        windows: logged plans.
        knows_goals: plans lead to goals (the stairs).
        return_bin: what plans are asked for; None = nothing.
        legal: bool [A], actions that plans are made of; None = all.
        version: as of ``Policy``.
        keeps_plans: tell of every plan in ``PolicyStep.head_record``.

    Raises:
        ValueError: the mode needs a head of another kind, or the games do not show what plans need.
    """

    def __init__(
        self,
        model: PlanningModel,
        config: PlannerConfig,
        spec: GamesSpec,
        windows: LoggedWindows,
        *,
        knows_goals: bool,
        return_bin: int | None = None,
        legal: np.ndarray | None = None,
        version: int = 0,
        keeps_plans: bool = False,
    ) -> None:
        self.model, self.config, self.version = model.eval().requires_grad_(False), config, version
        self._knows_goals, self._return_bin, self._keeps_plans = knows_goals, return_bin, keeps_plans
        self._legal = None if legal is None else torch.from_numpy(legal)
        for key in ("glyphs", "blstats") if knows_goals else ():
            if key not in spec.obs:
                raise ValueError(f"plans that lead to the stairs need the observation '{key}'")
        self._sees = frozenset(spec.obs)
        self._horizon = model.head.horizon
        self._executed = min(config.executed or model.critic.chunk_steps, self._horizon)
        self._pad = model.head.num_actions
        moves = {name: 1 + place for place, name in enumerate(MOVES)}
        self._move = np.array([moves.get(name, 0) for name in spec.action_names] + [0])
        self._num_candidates = 1 if config.mode == "none" else config.candidates
        self._ways = 2 if knows_goals and config.goal == "mixed" and self._num_candidates > 1 else 1
        self._steer = _steering(config)
        each = self._num_candidates // self._ways
        proposals = 1 if config.mode == "fk" else config.proposals
        steering = num_uniforms(each, self._horizon, config.checkpoints, proposals)
        self._num_uniforms = each * self._horizon * 2 if self._steer is None else steering
        """Random numbers of one game's plan, in either way."""
        self._spread, self._least_likely = self._calibrated(windows)

    def initial_state(self, num_games: int) -> np.ndarray:
        """No plan in any game: zeros float32 [B, H + 7]."""
        return np.zeros((num_games, _TOKENS + self._horizon), np.float32)

    @torch.inference_mode()
    def act(
        self,
        obs: Mapping[str, np.ndarray],
        recurrent_state: np.ndarray | None,
        action_mask: np.ndarray | None,
        noise: Noise,
        *,
        deterministic: bool = False,
    ) -> PolicyStep:
        """Execute the running plans, with new ones where they are over; ``deterministic`` changes nothing."""
        assert recurrent_state is not None, "a planner has a memory"
        memory = recurrent_state.copy()
        stands = self._note_blocked(memory, obs)
        games = np.flatnonzero(self._is_over(memory, obs, stands))
        record: dict[str, np.ndarray] = {}
        if len(games):
            steered, refused = self._plan(obs, memory, action_mask, noise, games)
            rows = torch.arange(len(games))
            memory[games, _TOKENS:] = steered.tokens[rows, steered.chosen].numpy()
            memory[games, _HAS_PLAN], memory[games, _PLACE] = 1, 0
            if self._keeps_plans:
                record = self._record(steered, refused, games, len(memory))
        every = np.arange(len(memory))
        actions = memory[every, _TOKENS + memory[:, _PLACE].astype(np.int64)].astype(np.int64)
        memory[:, _PLACE] += 1
        memory[:, _MOVE] = self._move[actions]
        if "blstats" in self._sees:
            memory[:, _HP] = obs["blstats"][:, _BL_HP]
            memory[:, [_COLUMN, _ROW]] = obs["blstats"][:, HERO]
        return PolicyStep(actions=actions, recurrent_state=memory, head_record=record)

    def _note_blocked(self, memory: np.ndarray, obs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Write down which moves were in vain; bool [B]: the last one was."""
        if not self.config.reactive or "blstats" not in self._sees:
            return np.zeros(len(memory), bool)
        at_once = (memory[:, [_COLUMN, _ROW]] == obs["blstats"][:, HERO]).all(1)
        move = memory[:, _MOVE].astype(np.int64)
        stands = at_once & (move > 0)
        before = np.where(at_once, memory[:, _BLOCKED].astype(np.int64), 0)
        memory[:, _BLOCKED] = np.where(stands, before | (1 << np.maximum(move - 1, 0)), before)
        return stands

    def _is_over(self, memory: np.ndarray, obs: Mapping[str, np.ndarray], stands: np.ndarray) -> np.ndarray:
        """Bool [B]: there is no plan, its part is executed, it says that it is over, or something came between."""
        place = memory[:, _PLACE].astype(np.int64)
        following = memory[np.arange(len(memory)), _TOKENS + np.minimum(place, self._horizon - 1)]
        over = (memory[:, _HAS_PLAN] == 0) | (place >= self._executed) | (following == self._pad)
        if self.config.reactive:
            if "blstats" in self._sees:
                over |= stands | (obs["blstats"][:, _BL_HP] < memory[:, _HP])
            if "message" in self._sees:
                over |= obs["message"][:, 0] > 0
        return over

    def _plan(
        self,
        obs: Mapping[str, np.ndarray],
        memory: np.ndarray,
        action_mask: np.ndarray | None,
        noise: Noise,
        games: np.ndarray,
    ) -> tuple[Steered, Tensor]:
        """New plans for some games, and which candidates were refused, as ``_settled``."""
        num, K = len(games), self._num_candidates
        seen = {key: torch.from_numpy(x[games]) for key, x in obs.items()}
        hero = seen["blstats"][:, HERO].long() if "blstats" in self._sees else torch.full((num, 2), -1)
        goal = torch.from_numpy(_stairs(obs["glyphs"][games])) if self._knows_goals else torch.full((num, 2), -1)
        legal = self._legal
        if action_mask is not None:
            allowed = torch.from_numpy(action_mask[games])
            legal = allowed if legal is None else allowed & legal
        return_bin = torch.full((num,), -1 if self._return_bin is None else self._return_bin)
        encoded = {key: seen[key] for key in self.model.encoder.keys}
        condition = self.model.condition(
            encoded,
            {"hero": hero, "goal": goal, "return_bin": return_bin},
            None if legal is None else legal.expand(num, -1),
        )
        states = self.model.critic.states(encoded, hero, goal)
        given = self._continued(memory[games]) if self.config.warm_start and K > 1 else None
        uniform = torch.from_numpy(noise.uniform(self._num_uniforms * self._ways, games))

        def score(plans: Tensor, rows: Tensor) -> Tensor:
            return self.model.critic.scores(states[rows % num], plans) / self._spread

        blocked = torch.from_numpy(memory[games, _BLOCKED].astype(np.int64))
        return self._settled(self._both_ways(condition, score, uniform, given), blocked)

    def _both_ways(self, condition: PlanCondition, score: Score, uniform: Tensor, given: Tensor | None) -> Steered:
        """Candidates that are asked to lead to the goal, that are not, or half of either."""
        num = len(uniform)
        free = condition.dropped(torch.ones(num, dtype=torch.bool))
        if self._ways == 1:
            is_free = self._knows_goals and self.config.goal == "free"
            return self._candidates(free if is_free else condition, score, uniform, given)
        # Drawn as of twice as many games, each with half of the candidates.
        legal = condition.legal
        both = PlanCondition(
            features=torch.cat([condition.features, free.features]),
            hero=torch.cat([condition.hero, free.hero]),
            goal=torch.cat([condition.goal, free.goal]),
            return_bin=torch.cat([condition.return_bin, free.return_bin]),
            legal=None if legal is None else torch.cat([legal, legal]),
        )
        halves = None if given is None else torch.cat(given.chunk(2, 1))
        steered = self._candidates(both, score, torch.cat(uniform.chunk(2, 1)), halves)
        joined = {
            name: torch.cat(getattr(steered, name).chunk(2), 1)
            for name in ("tokens", "scores", "log_prob", "weights", "evaluations")
        }
        fields = joined | {"weights": joined["weights"] / 2, "chosen": steered.chosen[:num]}
        return replace(steered, **fields, log_normaliser=steered.log_normaliser.view(2, num).logsumexp(0) - math.log(2))

    def _candidates(self, condition: PlanCondition, score: Score, uniform: Tensor, given: Tensor | None) -> Steered:
        """K plans for each of n games."""
        head, decoding = self.model.head, self.config.decoding
        shape = (len(uniform), self._num_candidates // self._ways, self._horizon)
        if self._steer is None:
            return best_of_n(head.sample(condition, shape[1], decoding, uniform.view(*shape, 2), given), score)
        start = torch.full(shape, self._pad + 1) if given is None else given
        return self._steer(head.denoiser(condition, decoding), score, start, decoding, uniform)

    def _settled(self, steered: Steered, blocked: Tensor) -> tuple[Steered, Tensor]:
        """With the best plan chosen among those that are not refused, bool [n, K]; among all, where all are.

        Args:
            steered: K plans for each of n games.
            blocked: int64 [n], bits of moves that were in vain on this square: none is tried again.
        """
        move = torch.from_numpy(self._move)[steered.tokens[:, :, 0]]
        vain = (move > 0) & ((blocked[:, None] >> (move - 1).clamp(min=0)) & 1).bool()
        refused = vain | (steered.log_prob < self._least_likely)
        barred = torch.where(refused.all(1, keepdim=True), vain, refused)
        barred = barred & ~barred.all(1, keepdim=True)
        return replace(steered, chosen=steered.scores.masked_fill(barred, -torch.inf).argmax(-1)), refused

    def _continued(self, memory: np.ndarray) -> Tensor:
        """int64 [n, K, H]: of the first candidate what is left of the last plan, and MASK everywhere else."""
        mask = self._pad + 1
        given = np.full((len(memory), self._num_candidates, self._horizon), mask)
        place = memory[:, _PLACE].astype(np.int64)[:, None] + np.arange(self._horizon)
        tokens = np.take_along_axis(memory[:, _TOKENS:], np.minimum(place, self._horizon - 1), 1).astype(np.int64)
        # A plan that said it was over, or was not followed, was wrong.
        goes_on = (memory[:, _HAS_PLAN] > 0) & (tokens[:, 0] != self._pad) & (place[:, 0] >= self._executed)
        kept = goes_on[:, None] & (place < self._horizon)
        given[:, 0] = np.where(kept, tokens, mask)
        return torch.from_numpy(given)

    @torch.inference_mode()
    def _calibrated(self, windows: LoggedWindows) -> tuple[float, float]:
        """Standard deviation of logged advantages, and the log-probability below which plans are refused."""
        model, chosen = self.model, windows.weight > 0
        obs = {key: x[chosen] for key, x in windows.obs.items()}
        condition = {name: x[chosen] for name, x in windows.condition.items()}
        states = model.critic.states(obs, condition["hero"], windows.critic_goal[chosen])
        advantage = model.critic.scores(states, windows.chunk[chosen]) - model.critic.values(states)
        spread = max(float(advantage.std()), 1e-6)
        plans = windows.plans[chosen][:, None]
        legal = None if self._legal is None else self._legal.expand(len(plans), -1)
        asked = model.condition(obs, condition, legal)
        if self._steer is not None:
            model.head.denoiser(asked, self.config.decoding)  # says so where the head cannot be steered
        if not self.config.refuse or self.config.mode == "none":
            return spread, -np.inf
        uniform = torch.from_numpy(np.random.default_rng(0).random((*plans.shape, 2), dtype=np.float32))
        likely = model.head.log_prob(asked, plans, self.config.decoding, uniform)
        return spread, float(likely.quantile(self.config.refuse))

    def _record(self, steered: Steered, refused: Tensor, games: np.ndarray, num_games: int) -> dict[str, np.ndarray]:
        """Of all games [B, ...]; ``planned`` says which ones have planned."""
        found = {
            "planned": torch.ones(len(games), dtype=torch.bool),
            "candidates": steered.tokens.to(torch.int16),
            "scores": steered.scores * self._spread,
            "log_prob": steered.log_prob,
            "refused": refused,
            "taken": steered.chosen.to(torch.int16),
            "evaluations": steered.evaluations.to(torch.int16),
        }
        rows = {}
        for name, x in found.items():
            rows[name] = np.zeros((num_games, *x.shape[1:]), x.numpy().dtype)
            rows[name][games] = x.numpy()
        return rows


def _steering(config: PlannerConfig) -> Callable[..., Steered] | None:
    """What steers plans while they are drawn; None where the best of finished plans is taken."""
    common: dict[str, Any] = {"scale": config.strength, "checkpoints": config.checkpoints}
    proposing = common | {"proposals": config.proposals}
    found = {"fk": partial(fk, **common), "svdd": partial(svdd, **proposing), "svdd_r": partial(svdd_r, **proposing)}
    return found.get(config.mode)


def _stairs(glyphs: np.ndarray) -> np.ndarray:
    """int64 [n, 2]: column and row of the stairs down on maps [n, 21, 79]; -1 where none is seen."""
    is_stairs = (CLASS_OF_GLYPH[glyphs] == _STAIRS).reshape(len(glyphs), -1)
    cell = is_stairs.argmax(1)
    square = np.stack([cell % glyphs.shape[2], cell // glyphs.shape[2]], axis=1)
    return np.where(is_stairs.any(1)[:, None], square, -1)
