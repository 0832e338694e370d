"""What every metric of a run means: those of launch, and those that the rewards declare."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from rewards.config import RewardConfig

_EVERY_RUN: Mapping[str, str] = MappingProxyType(
    {
        "rollout/success": "Share of the last 100 episodes that solved their task.",
        "rollout/env_return": "Mean undiscounted sum of the environment's own reward over the last 100 "
        "episodes; never a shaped reward.",
        "rollout/episode_steps": "Mean length of the last 100 episodes, in steps.",
        "rollout/episodes": "Episodes finished since the run began.",
        "rollout/truncated_share": "Share of the last 100 episodes that a time limit cut.",
        "rollout/score": "Mean in-game score of the last 100 episodes (NetHack).",
        "rollout/max_depth": "Mean deepest dungeon level reached in the last 100 episodes (NetHack).",
        "rollout/max_xp_level": "Mean highest experience level reached in the last 100 episodes (NetHack).",
        "rollout/dropped": "Rollouts dropped since the last start, because their worker died or they were too old.",
        "rewards/*/mean": "Mean of this reward part over the valid steps of the last update, unweighted.",
        "rewards/*/valid": "Share of the steps of the last update for which this reward part had a value.",
        "rewards/*/episode_sum": "Mean sum of this reward part over the last 100 episodes, unweighted.",
        "rewards/*/return_correlation": "Spearman's rank correlation, over the last 100 episodes, of the sum of this "
        "reward (0 where it had no value yet) with the environment's own return.",
        "policy/loss": "Mean loss of the last update: surrogate, entropy bonus and value loss, weighted.",
        "policy/policy_loss": "Mean of the actor head's surrogate (PPO: clipped), without the entropy bonus.",
        "policy/value_loss": "Mean squared value error of the last update, over reward streams.",
        "policy/entropy": "Mean entropy of the action distribution, in nats.",
        "policy/approx_kl": "Approximate KL divergence from the policy at the start of the update to the updated "
        "one, in nats: mean of (r - 1) - log r.",
        "policy/clip_fraction": "Share of samples whose probability ratio was clipped.",
        "policy/explained_variance": "1 - Var(return - value) / Var(return), before the update; 1 is "
        "perfect, 0 no better than a constant.",
        "policy/grad_norm": "Mean global gradient norm before clipping.",
        "policy/lag_mean": "Mean age of the samples of the last update, in policy versions.",
        "policy/lag_max": "Greatest age of a sample of the last update, in policy versions.",
        "time/steps_per_s": "Environment steps per second since the last line.",
        "time/wait_s": "Seconds that the driver waited for rollouts, per update.",
        "time/labels_s": "Seconds that the driver spent handing captions to the labeller and taking its labels, "
        "per update.",
        "time/reward_model_s": "Seconds that the driver spent training reward models (of captions, of preferences) "
        "and valuing captions, per update.",
        "time/update_s": "Seconds that the driver waited for a batch to be learned from, per update.",
        "time/games_s": "Seconds that a worker spent stepping games, per rollout.",
        "time/inference_s": "Seconds that a worker spent choosing actions and valuing observations, per rollout.",
        "time/captions_s": "Seconds that a worker spent hashing and counting captions, per rollout.",
        "time/record_s": "Seconds that a worker spent writing its rollout down, per rollout.",
        "time/score_s": "Seconds that a learner spent scoring rollouts with the reward models, per update.",
        "time/learn_s": "Seconds that a learner spent on advantages and gradient steps, per update.",
        "time/exchange_s": "Seconds that a peer spent averaging gradients with the others, waiting included, per "
        "update.",
        "time/evidence_s": "Seconds that a learner spent gathering evidence for the rewards' teachers, per update.",
        "time/account_s": "Seconds that a learner spent summing up captions and rewards, per update.",
        "time/collect_s": "Seconds spent collecting rollouts, per update (in runs of the reference learner).",
        "time/elapsed_s": "Seconds since the run began, without the pauses between resumes.",
        "offline/head_loss": "Mean loss of the plan head over the updates since the last line, in nats a token "
        "(runs of 'yendor offline train').",
        "offline/grad_norm": "Mean global gradient norm of the plan head and its encoder before clipping.",
        "offline/weight_max": "Greatest weight of a plan in a batch, mean over the updates since the last line.",
        "offline/critic_loss": "Mean squared error of the critic's two members, in units of its scale.",
        "offline/value_loss": "Expectile loss of the critic's state values, in units of its scale.",
        "offline/value": "Mean state value that the critic gives the logged states.",
        "time/updates_per_s": "Gradient steps per second since the last line (runs of 'yendor offline train').",
        "workers/deaths": "Rollout workers that died and were replaced since the last start.",
    }
)
"""Those that every run has, whatever its rewards."""


def glossary(reward: RewardConfig) -> Mapping[str, str]:
    """``{metric name: what it is}`` of a run with these rewards; ``*`` stands for one name, such as a reward part's."""
    return {**_EVERY_RUN, **{name: text for kind in reward.kinds.values() for name, text in kind.metrics.items()}}


GLOSSARY: Mapping[str, str] = MappingProxyType(dict(glossary(RewardConfig())))
"""Of a run without rewards from outside."""


def glossary_markdown(glossary: Mapping[str, str] = GLOSSARY) -> str:
    """The glossary as Markdown: one table for each group of metrics, for the README."""
    groups: dict[str, list[str]] = {}
    for name, text in glossary.items():
        shown = name.replace("*", "<name>")
        groups.setdefault(name.partition("/")[0], []).append(f"| `{shown}` | {text} |")
    head = "| metric | meaning |\n|---|---|\n"
    return "\n\n".join(f"**{group}**\n\n{head}" + "\n".join(rows) for group, rows in groups.items()) + "\n"
