"""PPO: synchronous with GAE for any actor head, asynchronous with V-trace for heads with a likelihood."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.advantages import bootstrap_values, explained_variance, gae, normalised, value_loss, vtrace
from agents.config import PPOConfig
from agents.devices import autocast
from agents.heads.actor_head import HeadBatch, LikelihoodHead
from agents.model import ActorCritic, FlatParameters
from envs.data import RewardOutput, Rollout
from envs.group import Alone, Group
from envs.phases import Phases
from envs.protocols import State


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainBatch:
    """T steps of B games (all workers side by side), on the learner's device."""

    obs: Mapping[str, Tensor]
    """``{key: [T+1, B, ...]}``."""
    actions: Tensor
    rewards: Tensor
    """[T, B, S]."""
    values: Tensor
    """[T+1, B, S] of the behaviour policy."""
    terminated: Tensor
    done: Tensor
    final_at: Tensor
    """int64 [N, 2]."""
    final_obs: Mapping[str, Tensor]
    final_values: Tensor
    """[N, S] of the behaviour policy."""
    log_prob: Tensor | None
    action_mask: Tensor | None
    head_record: Mapping[str, Tensor]
    recurrent_state: Tensor | None
    policy_version: np.ndarray
    """int64 [T, B], kept on the host."""

    @property
    def num_steps(self) -> int:
        """T."""
        return self.done.shape[0]

    @property
    def num_games(self) -> int:
        """B."""
        return self.done.shape[1]


def train_batch(rollouts: Sequence[Rollout], rewards: Sequence[RewardOutput], device: torch.device) -> TrainBatch:
    """Join rollouts of equal T side by side.

    Raises:
        ValueError: a rollout has no values (it was not collected for learning).
    """
    if any(r.values is None for r in rollouts):
        raise ValueError("a rollout without values cannot be learned from")
    first = rollouts[0]

    def joined(arrays: Iterator[np.ndarray], axis: int = 1) -> Tensor:
        found = list(arrays)
        whole = found[0] if len(found) == 1 else np.concatenate(found, axis)
        # Copied into torch's own memory, which is aligned: the last bits of a matrix product depend on
        # where its operands lie, and equal runs must have equal weights.
        return torch.tensor(whole, device=device)

    def optional(name: str, axis: int = 1) -> Tensor | None:
        if getattr(first, name) is None:
            return None
        return joined((getattr(r, name) for r in rollouts), axis)

    offsets = np.cumsum([0] + [r.num_games for r in rollouts[:-1]])
    return TrainBatch(
        obs={key: joined(r.obs[key] for r in rollouts) for key in first.obs},
        actions=joined(r.actions for r in rollouts),
        rewards=joined(output.streams for output in rewards),
        values=joined(r.values for r in rollouts),  # pyright: ignore[reportArgumentType]
        terminated=joined(r.terminated for r in rollouts),
        done=joined(r.done for r in rollouts),
        final_at=joined((_shifted(r, offset) for r, offset in zip(rollouts, offsets, strict=True)), 0),
        final_obs={key: joined((r.final_obs.obs[key] for r in rollouts), 0) for key in first.final_obs.obs},
        final_values=joined((r.final_obs.values for r in rollouts), 0),  # pyright: ignore[reportArgumentType]
        log_prob=optional("log_prob"),
        action_mask=optional("action_mask"),
        head_record={key: joined(r.head_record[key] for r in rollouts) for key in first.head_record},
        recurrent_state=optional("recurrent_state", 0),
        policy_version=np.concatenate([r.policy_version for r in rollouts], axis=1),
    )


def _shifted(rollout: Rollout, offset: int) -> np.ndarray:
    """(t, b) of the rollout's ended episodes, with b counted over all rollouts."""
    return rollout.final_obs.at + np.array([0, offset])


@dataclass(frozen=True, kw_only=True, slots=True)
class _Targets:
    """What an update steers by; flat over samples only in the minibatches."""

    advantage: Tensor
    """[T, B], summed over streams."""
    advantages: Tensor
    """[G, T, B]: those of every member of the group, this one's among them."""
    value: Tensor
    """[T, B, S]."""
    old_log_prob: Tensor | None
    """[T, B] of the policy that ratios are clipped around; None for heads without a likelihood."""


class PPOLearner:
    """Improves an ``ActorCritic`` on rollouts and their rewards.

    Args:
        model: the network, improved in place.
        config: hyper-parameters.
        gammas: discount of each of the S streams.
        device: where it computes.
        seed: fixes the order of minibatches.
        group: learners that improve one network together, each on rollouts of its own and of equal size. They
            hold equal weights: gradients are averaged, and each minibatch is split over the members, with
            advantages normalised over all of it.

    Rollouts of the current policy are learned from by GAE with the values recorded while acting. Older ones
    are re-evaluated with the current network and corrected by V-trace; ratios are then clipped around the
    policy as it stands at the start of the update (Hilton et al. 2022, "Batch size-invariance for policy
    optimization", section 3: behaviour and proximal policies decoupled), which takes a ``LikelihoodHead``.
    """

    def __init__(
        self,
        model: ActorCritic,
        config: PPOConfig,
        gammas: Sequence[float],
        device: torch.device,
        seed: int,
        group: Group | None = None,
    ) -> None:
        self.model = model.to(device)
        self.config, self.device = config, device
        self.group = group or Alone()
        self.phases = Phases()
        self.version = 0
        self._gamma = torch.tensor(gammas, dtype=torch.float32, device=device)
        self._flat = FlatParameters(self.model)
        self._optimizer = torch.optim.Adam(
            [self._flat.values], lr=config.learning_rate, eps=1e-5, fused=device.type in ("cpu", "cuda")
        )
        self._seed = seed
        self._generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, 2))))

    def update(
        self, rollouts: Sequence[Rollout], rewards: Sequence[RewardOutput], progress: float = 0.0
    ) -> dict[str, float]:
        """One PPO update.

        Args:
            rollouts: of equal length T.
            rewards: of each rollout.
            progress: share of the run that is over, for annealing.

        Returns:
            Metrics, without their group ("loss", "entropy", ...).

        Raises:
            FloatingPointError: the loss is not finite; the network is left as it was before that step.
            ValueError: a rollout is of an older policy, and the actor head has no likelihood to weigh it by.
        """
        with self.phases.measure("learn/advantages"):
            batch = train_batch(rollouts, rewards, self.device)
            self._set_learning_rate(progress)
            lag = self.version - batch.policy_version
            targets = self._on_policy(batch) if lag.max() == 0 else self._off_policy(batch)
        if self.group.size > 1:
            with self.phases.measure("learn/exchange"):
                everyones = self.group.gather(targets.advantage.numpy())
            targets = replace(targets, advantages=torch.from_numpy(everyones))
        # Of the update alone, so that it repeats after a resume, and of this member of the group.
        generator = np.random.default_rng((self._seed, 2, self.version, self.group.rank, 1))
        sums: dict[str, list[Tensor]] = defaultdict(list)
        for _ in range(self.config.epochs):
            for rows in self._minibatches(batch):
                for name, value in self._step(batch, targets, rows, generator).items():
                    sums[name].append(value)
        self.version += 1
        metrics = {name: torch.stack(values).mean().item() for name, values in sums.items()}
        explained = explained_variance(batch.values[:-1].flatten(0, 1), targets.value.flatten(0, 1))
        metrics["explained_variance"] = explained.mean().item()
        metrics |= {"lag_mean": float(lag.mean()), "lag_max": float(lag.max())}
        return metrics

    def _set_learning_rate(self, progress: float) -> None:
        if self.config.anneal == "linear":
            for group in self._optimizer.param_groups:
                group["lr"] = self.config.learning_rate * (1.0 - progress)

    def _on_policy(self, batch: TrainBatch) -> _Targets:
        following = bootstrap_values(batch.values, batch.terminated, batch.done, batch.final_at, batch.final_values)
        advantage, value = gae(
            batch.rewards, batch.values[:-1], following, batch.done, self._gamma, self.config.gae_lambda
        )
        return _targets(advantage.sum(-1), value, batch.log_prob)

    @torch.no_grad()
    def _off_policy(self, batch: TrainBatch) -> _Targets:
        head = self.model.head
        if not isinstance(head, LikelihoodHead) or batch.log_prob is None:
            raise ValueError(
                f"play of older policies (max_policy_lag above 0) is weighed by the likelihood of its actions, "
                f"and {type(head).__name__} gives none; allowed: max_policy_lag 0"
            )
        with autocast(self.config.precision, self.device):
            # One step more than was played, for the value after the last action. Whether that
            # observation ends an episode does not matter: nothing follows it.
            done = torch.cat([batch.done, batch.done[-1:]])
            features = self.model.unroll(batch.obs, batch.recurrent_state, done)
            played = features[:-1].flatten(0, 1), batch.actions.flatten(0, 1)
            mask = None if batch.action_mask is None else batch.action_mask.flatten(0, 1)
            record = {name: x.flatten(0, 1) for name, x in batch.head_record.items()}
            log_prob = head.log_prob(*played, mask, record).view(batch.done.shape)
            values = self.model.values(features)
            final_values = self._final_values(batch, features)
        following = bootstrap_values(values, batch.terminated, batch.done, batch.final_at, final_values)
        ratio = (log_prob - batch.log_prob).exp()
        advantage, value = vtrace(
            batch.rewards,
            values[:-1],
            following,
            batch.done,
            self._gamma,
            self.config.gae_lambda,
            ratio,
            self.config.rho_max,
            self.config.c_max,
        )
        return _targets(advantage.sum(-1), value, log_prob)

    def _final_values(self, batch: TrainBatch, features: Tensor) -> Tensor:
        if not len(batch.final_at):
            return batch.final_values
        t, b = batch.final_at.unbind(1)
        # With a core, features are its state: the memory with which the last observation is read.
        memory = None if self.model.core is None else features[t, b].float()
        return self.model.values(self.model.step(batch.final_obs, memory)[0])

    def _minibatches(self, batch: TrainBatch) -> Iterator[list[np.ndarray]]:
        """Rows of each minibatch, every row once an epoch: samples, or whole sequences with a core.

        For every member of the group, in the order of ranks: all draw the same orders, so that each knows
        whose advantages meet in a minibatch.
        """
        num_rows = batch.num_games if self.model.core else batch.num_steps * batch.num_games
        size = self.config.minibatch // self.group.size
        size = max(1, size // batch.num_steps if self.model.core else size)
        orders = [self._generator.permutation(num_rows) for _ in range(self.group.size)]
        for start in range(0, num_rows, size):
            yield [order[start : start + size] for order in orders]

    def _step(
        self, batch: TrainBatch, targets: _Targets, members_rows: list[np.ndarray], generator: np.random.Generator
    ) -> dict[str, Tensor]:
        """One gradient step on some rows of each member's batch."""
        indices = [torch.from_numpy(rows).to(self.device) for rows in members_rows]
        index = indices[self.group.rank]
        sequences = self.model.core is not None

        def chosen(x: Tensor, index: Tensor = index) -> Tensor:
            if sequences:
                return x[:, index].flatten(0, 1)
            return x.flatten(0, 1)[index]

        with self.phases.measure("learn/forward"), autocast(self.config.precision, self.device):
            if sequences:
                assert batch.recurrent_state is not None
                obs = {key: x[:-1, index] for key, x in batch.obs.items()}
                features = self.model.unroll(obs, batch.recurrent_state[index], batch.done[:, index])
                features = features.flatten(0, 1)
            else:
                features = self.model.encoder({key: chosen(x[:-1]) for key, x in batch.obs.items()})
            advantage = chosen(targets.advantage)
            if self.config.normalise_advantage:
                among = torch.cat([chosen(a, i) for a, i in zip(targets.advantages, indices, strict=True)])
                advantage = normalised(advantage, self.config.advantage_std_floor, among)
            head_batch = HeadBatch(
                actions=chosen(batch.actions),
                advantage=advantage,
                old_log_prob=None if targets.old_log_prob is None else chosen(targets.old_log_prob),
                action_mask=None if batch.action_mask is None else chosen(batch.action_mask),
                record={key: chosen(x) for key, x in batch.head_record.items()},
                generator=generator,
            )
            head = self.model.head.loss(features, head_batch, self.config)
            values = value_loss(self.model.values(features), chosen(targets.value)).mean()
            loss = head.loss + self.config.value * values
        norm = self._descend(loss)
        return {**head.metrics, "loss": loss.detach(), "value_loss": values.detach(), "grad_norm": norm}

    def _descend(self, loss: Tensor) -> Tensor:
        flat, measure = self._flat, self.phases.measure
        with measure("learn/backward"):
            flat.gradient.zero_()
            loss.backward()
        if self.group.size > 1:
            with measure("learn/exchange"):
                self.group.average(flat.gradient.numpy())
        with measure("learn/optimiser"):
            norm = flat.clip(self.config.max_grad_norm)
            if not torch.isfinite(norm):
                raise FloatingPointError(f"the gradient is not finite at update {self.version} (loss {loss.item()})")
            self._optimizer.step()
        return norm

    def load_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Take over a network's weights (``weights_of``)."""
        self.model.load_state_dict({name: torch.from_numpy(np.array(x)) for name, x in weights.items()})

    def state_dict(self) -> State:
        """Optimiser, generator and version; the weights are saved apart (``weights_of``)."""
        optimizer = self._optimizer.state_dict()["state"]
        return {
            "version": self.version,
            "optimizer": {
                str(i): {name: x.cpu().numpy() for name, x in slots.items()} for i, slots in optimizer.items()
            },
            "generator": dict(self._generator.bit_generator.state),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
        self.version = int(state["version"])
        slots = {
            int(i): {name: torch.from_numpy(np.array(x)) for name, x in slots.items()}
            for i, slots in state["optimizer"].items()
        }
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": slots, "param_groups": groups})
        self._generator.bit_generator.state = state["generator"]


def _targets(advantage: Tensor, value: Tensor, old_log_prob: Tensor | None) -> _Targets:
    return _Targets(advantage=advantage, advantages=advantage[None], value=value, old_log_prob=old_log_prob)
