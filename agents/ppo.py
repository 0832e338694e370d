"""PPO: synchronous with GAE, asynchronous with V-trace, for any actor head and any number of streams."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.advantages import bootstrap_values, gae, vtrace
from agents.batch import TrainBatch, train_batch
from agents.config import PPOConfig
from agents.devices import autocast
from agents.heads.base import HeadBatch
from agents.losses import explained_variance, normalised, value_loss
from agents.model import ActorCritic
from envs.data import RewardOutput, Rollout
from envs.protocols import State


@dataclass(frozen=True, kw_only=True, slots=True)
class _Targets:
    """What an update steers by; flat over samples only in the minibatches."""

    advantage: Tensor
    """[T, B], summed over streams."""
    value: Tensor
    """[T, B, S]."""
    old_log_prob: Tensor | None
    """[T, B] of the policy that ratios are clipped around."""


class PPOLearner:
    """Improves an ``ActorCritic`` on rollouts and their rewards.

    Args:
        model: the network, improved in place.
        config: hyper-parameters.
        gammas: discount of each of the S streams.
        device: where it computes.
        seed: fixes the order of minibatches.

    Rollouts of the current policy are learned from by GAE with the values recorded while acting. Older ones
    are re-evaluated with the current network and corrected by V-trace; ratios are then clipped around the
    policy as it stands at the start of the update (Hilton et al. 2022, "Batch size-invariance for policy
    optimization", section 3: behaviour and proximal policies decoupled).
    """

    def __init__(
        self,
        model: ActorCritic,
        config: PPOConfig,
        gammas: Sequence[float],
        device: torch.device,
        seed: int,
    ) -> None:
        self.model = model.to(device)
        self.config, self.device = config, device
        self.version = 0
        self._gamma = torch.tensor(gammas, dtype=torch.float32, device=device)
        self._optimizer = torch.optim.Adam(
            model.parameters(), lr=config.learning_rate, eps=1e-5, fused=device.type in ("cpu", "cuda")
        )
        self._generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, 2))))

    def update(
        self, rollouts: Sequence[Rollout], rewards: Sequence[RewardOutput], progress: float = 0.0
    ) -> dict[str, float]:
        """One PPO update.

        Args:
            rollouts: of equal length T.
            rewards: what each rollout was worth.
            progress: share of the run that is over, for annealing.

        Returns:
            Metrics, without their group ("loss", "entropy", ...).

        Raises:
            FloatingPointError: the loss is not finite; the network is left as it was before that step.
        """
        batch = train_batch(rollouts, rewards, self.device)
        self._set_learning_rate(progress)
        lag = self.version - batch.policy_version
        targets = self._on_policy(batch) if lag.max() == 0 else self._off_policy(batch)
        sums: dict[str, list[Tensor]] = defaultdict(list)
        for _ in range(self.config.epochs):
            for rows in self._minibatches(batch):
                for name, value in self._step(batch, targets, rows).items():
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
        return _Targets(advantage=advantage.sum(-1), value=value, old_log_prob=batch.log_prob)

    @torch.no_grad()
    def _off_policy(self, batch: TrainBatch) -> _Targets:
        with autocast(self.config.precision, self.device):
            # One step more than was played, for the value after the last action. Whether that
            # observation ends an episode does not matter: nothing follows it.
            done = torch.cat([batch.done, batch.done[-1:]])
            features = self.model.unroll(batch.obs, batch.recurrent_state, done)
            log_prob = self.model.head.log_prob(features[:-1].flatten(0, 1), _head_batch(batch))
            values = self.model.values(features)
            final_values = self._final_values(batch, features)
        following = bootstrap_values(values, batch.terminated, batch.done, batch.final_at, final_values)
        if log_prob is None or batch.log_prob is None:
            ratio = torch.ones(batch.done.shape, device=self.device)
        else:
            log_prob = log_prob.view(batch.done.shape)
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
        return _Targets(advantage=advantage.sum(-1), value=value, old_log_prob=log_prob)

    def _final_values(self, batch: TrainBatch, features: Tensor) -> Tensor:
        if not len(batch.final_at):
            return batch.final_values
        t, b = batch.final_at.unbind(1)
        # With a core, features are its state: the memory with which the last observation is met.
        memory = None if self.model.core is None else features[t, b].float()
        return self.model.values(self.model.step(batch.final_obs, memory)[0])

    def _minibatches(self, batch: TrainBatch) -> Iterator[np.ndarray]:
        """Rows of each minibatch, every row once an epoch: samples, or whole sequences with a core."""
        num_rows = batch.num_games if self.model.core else batch.num_steps * batch.num_games
        size = self.config.minibatch // batch.num_steps if self.model.core else self.config.minibatch
        order = self._generator.permutation(num_rows)
        for start in range(0, num_rows, max(1, size)):
            yield order[start : start + max(1, size)]

    def _step(self, batch: TrainBatch, targets: _Targets, rows: np.ndarray) -> dict[str, Tensor]:
        """One gradient step on some rows."""
        index = torch.from_numpy(rows).to(self.device)
        sequences = self.model.core is not None

        def chosen(x: Tensor) -> Tensor:
            if sequences:
                return x[:, index].flatten(0, 1)
            return x.flatten(0, 1)[index]

        with autocast(self.config.precision, self.device):
            if sequences:
                assert batch.recurrent_state is not None
                obs = {key: x[:-1, index] for key, x in batch.obs.items()}
                features = self.model.unroll(obs, batch.recurrent_state[index], batch.done[:, index])
                features = features.flatten(0, 1)
            else:
                features = self.model.encoder({key: chosen(x[:-1]) for key, x in batch.obs.items()})
            advantage = chosen(targets.advantage)
            if self.config.normalise_advantage:
                advantage = normalised(advantage, self.config.advantage_std_floor)
            head_batch = HeadBatch(
                actions=chosen(batch.actions),
                advantage=advantage,
                old_log_prob=None if targets.old_log_prob is None else chosen(targets.old_log_prob),
                action_mask=None if batch.action_mask is None else chosen(batch.action_mask),
                record={key: chosen(x) for key, x in batch.head_record.items()},
            )
            head = self.model.head.loss(features, head_batch, self.config)
            values = value_loss(self.model.values(features), chosen(targets.value)).mean()
            loss = head.loss + self.config.value * values
        norm = self._descend(loss)
        return {**head.metrics, "loss": loss.detach(), "value_loss": values.detach(), "grad_norm": norm}

    def _descend(self, loss: Tensor) -> Tensor:
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm)
        if not torch.isfinite(norm):
            raise FloatingPointError(f"the gradient is not finite at update {self.version} (loss {loss.item()})")
        self._optimizer.step()
        return norm

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


def _head_batch(batch: TrainBatch) -> HeadBatch:
    """All samples, flat, without advantages: for log-probabilities."""
    return HeadBatch(
        actions=batch.actions.flatten(0, 1),
        advantage=torch.zeros(batch.done.numel(), device=batch.done.device),
        old_log_prob=None,
        action_mask=None if batch.action_mask is None else batch.action_mask.flatten(0, 1),
        record={key: x.flatten(0, 1) for key, x in batch.head_record.items()},
    )
