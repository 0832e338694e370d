"""One discrete action a step, from logits."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from agents.advantages import approximate_kl, clipped_surrogate
from agents.config import CategoricalConfig, PPOConfig
from agents.encoders import initialise
from agents.heads.actor_head import HeadBatch, HeadLoss, HeadSample
from envs.protocols import GamesSpec, Noise


class CategoricalHead(nn.Module):
    """A linear layer to logits; masked actions get probability zero. A ``LikelihoodHead``.

    Args:
        config: nothing to set.
        num_features: F.
        spec: says how many actions there are.

    Raises:
        ValueError: the games have continuous actions.
    """

    def __init__(self, config: CategoricalConfig, num_features: int, spec: GamesSpec) -> None:
        super().__init__()
        if not spec.num_actions:
            raise ValueError("the categorical head needs discrete actions; these games have continuous ones")
        self.logits = nn.Linear(num_features, spec.num_actions)
        # Nearly uniform at first: no action is preferred before there is a reason.
        initialise(self, gain=0.01)

    def log_probs(self, features: Tensor, action_mask: Tensor | None) -> Tensor:
        """Log-probabilities [N, A] of features [N, F], in fp32 whatever the network's precision."""
        logits = self.logits(features).float()
        if action_mask is not None:
            logits = logits.masked_fill(~action_mask, -torch.inf)
        return logits.log_softmax(-1)

    def sample(
        self, features: Tensor, action_mask: Tensor | None, noise: Noise, *, deterministic: bool = False
    ) -> HeadSample:
        """Draw by inverting the distribution function, so that an action depends on its own noise alone."""
        log_probs = self.log_probs(features, action_mask)
        if deterministic:
            actions = log_probs.argmax(-1)
        else:
            # On the host, where the noise is: these arrays are small, and numpy's calls are the cheaper ones.
            cumulative = log_probs.detach().exp().cpu().numpy().cumsum(-1, dtype=np.float64)
            level = noise.uniform(1) * cumulative[:, -1:]
            chosen = np.minimum((cumulative <= level).sum(-1), log_probs.shape[-1] - 1)
            actions = torch.from_numpy(chosen).to(log_probs.device)
        log_prob = _of(log_probs, actions)
        return HeadSample(actions=actions, log_prob=log_prob)

    def log_prob(
        self, features: Tensor, actions: Tensor, action_mask: Tensor | None, record: Mapping[str, Tensor]
    ) -> Tensor:
        """[N] of actions [N]; there is no record."""
        return _of(self.log_probs(features, action_mask), actions)

    def loss(self, features: Tensor, batch: HeadBatch, config: PPOConfig) -> HeadLoss:
        """PPO's clipped surrogate less the entropy bonus."""
        log_probs = self.log_probs(features, batch.action_mask)
        log_prob = _of(log_probs, batch.actions)
        assert batch.old_log_prob is not None, "the categorical head records log-probabilities"
        policy_loss = clipped_surrogate(log_prob, batch.old_log_prob, batch.advantage, config.clip).mean()
        # A masked action has log-probability -inf and contributes p log p = 0.
        entropy = -(log_probs.exp() * log_probs.clamp(min=-1e9)).sum(-1).mean()
        with torch.no_grad():
            outside = (log_prob - batch.old_log_prob).exp().sub(1.0).abs() > config.clip
            metrics = {
                "policy_loss": policy_loss.detach(),
                "entropy": entropy.detach(),
                "approx_kl": approximate_kl(log_prob, batch.old_log_prob).mean(),
                "clip_fraction": outside.float().mean(),
            }
        return HeadLoss(loss=policy_loss - config.entropy * entropy, metrics=metrics)


def _of(log_probs: Tensor, actions: Tensor) -> Tensor:
    """[N] of the chosen actions [N], from [N, A] of all."""
    return log_probs.gather(-1, actions.long()[:, None])[:, 0]
