"""A Stable-Baselines3 model as a ``Policy``, and our network inside one of its actor-critic policies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import stable_baselines3 as sb3
import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor

from agents.config import EncoderConfig, ModelConfig
from agents.encoders import Encoder
from agents.sb3.vec_env import action_space, check_mask, obs_specs
from envs.protocols import GamesSpec, Noise, PolicyStep

ALGORITHMS: Mapping[str, type[BaseAlgorithm]] = {
    algorithm.__name__.lower(): algorithm for algorithm in (sb3.PPO, sb3.A2C, sb3.DQN, sb3.SAC, sb3.TD3, sb3.DDPG)
}
"""``{name: class}`` of the algorithms whose models can be loaded."""

Observation = np.ndarray | dict[str, np.ndarray]
Chooser = Callable[[Any, Observation, Noise], np.ndarray]


def load_model(path: Path, algorithm: str) -> BaseAlgorithm:
    """Load a saved SB3 model onto the CPU.

    An SB3 zip holds pickled Python objects: loading one runs whatever its maker put in. Load only files
    that you, or someone you trust, wrote. Nothing in Yendor loads one unless asked to by name.

    Raises:
        ValueError: the algorithm is unknown, or there is no such file.
    """
    if algorithm not in ALGORITHMS:
        raise ValueError(f"unknown Stable-Baselines3 algorithm '{algorithm}'; allowed: {', '.join(ALGORITHMS)}")
    if not path.is_file():
        raise ValueError(f"there is no Stable-Baselines3 model at {path}")
    return ALGORITHMS[algorithm].load(path, device="cpu")


class Sb3Policy:
    """Acts with an SB3 model.

    Sampled actions depend on the given noise alone, so that evaluations can be cut and resumed: discrete
    on-policy models draw by inverting their distribution, DQN explores with its final rate, any other model
    is asked game by game under a generator that the noise seeds (slower).

    Args:
        model: a trained model.
        spec: the games that it will play.

    Raises:
        ValueError: the model's observations or actions are not those of the games.
    """

    def __init__(self, model: BaseAlgorithm, spec: GamesSpec) -> None:
        _check_spaces(model, spec)
        self.model = model
        self.version = int(model.num_timesteps)
        self._is_dict = isinstance(model.observation_space, spaces.Dict)
        self._keys = tuple(obs_specs(model.observation_space))
        self._sample = _chooser(model)

    def initial_state(self, num_games: int) -> None:
        """No memory."""

    def act(
        self,
        obs: Mapping[str, np.ndarray],
        recurrent_state: np.ndarray | None,
        action_mask: np.ndarray | None,
        noise: Noise,
        *,
        deterministic: bool = False,
    ) -> PolicyStep:
        """Choose actions for observations ``{key: [B, ...]}``.

        Raises:
            ValueError: the mask forbids an action, which SB3 models cannot heed.
        """
        check_mask(action_mask)
        seen: Observation = {key: obs[key] for key in self._keys} if self._is_dict else obs[self._keys[0]]
        if deterministic:
            actions = self.model.predict(seen, deterministic=True)[0]  # pyright: ignore[reportArgumentType]
        else:
            actions = self._sample(self.model, seen, noise)
        return PolicyStep(actions=actions)


def _check_spaces(model: BaseAlgorithm, spec: GamesSpec) -> None:
    known = obs_specs(model.observation_space)
    for key, wanted in known.items():
        if key not in spec.obs or spec.obs[key].shape != wanted.shape:
            given = f"of shape {spec.obs[key].shape}" if key in spec.obs else "missing"
            raise ValueError(f"the model observes '{key}' of shape {wanted.shape}; in these games it is {given}")
    own, actions = model.action_space, action_space(spec)
    if own.shape != actions.shape or getattr(own, "n", 0) != getattr(actions, "n", 0):
        raise ValueError(f"the model acts in {own}, these games in {actions}")


def _chooser(model: BaseAlgorithm) -> Chooser:
    discrete = isinstance(model.action_space, spaces.Discrete)
    for kind, choose in ((OnPolicyAlgorithm, _from_distribution), (sb3.DQN, _epsilon_greedy)):
        if discrete and isinstance(model, kind):
            return choose
    return _game_by_game


def _from_distribution(model: Any, obs: Observation, noise: Noise) -> np.ndarray:
    model.policy.set_training_mode(False)
    with torch.no_grad():
        tensors, _ = model.policy.obs_to_tensor(obs)
        probs = model.policy.get_distribution(tensors).distribution.probs
    cumulative = probs.double().cumsum(-1).cpu().numpy()
    level = noise.uniform(1).astype(np.float64) * cumulative[:, -1:]
    return (cumulative <= level).sum(-1).clip(max=cumulative.shape[1] - 1)


def _epsilon_greedy(model: Any, obs: Observation, noise: Noise) -> np.ndarray:
    greedy, _ = model.predict(obs, deterministic=True)
    drawn = noise.uniform(2)
    anything = (drawn[:, 1] * model.action_space.n).astype(np.int64)
    return np.where(drawn[:, 0] < model.exploration_rate, anything, greedy)


def _game_by_game(model: Any, obs: Observation, noise: Noise) -> np.ndarray:
    seeds = (noise.uniform(1)[:, 0].astype(np.float64) * (1 << 24)).astype(np.int64)
    actions = []
    with torch.random.fork_rng(devices=[]):
        for game, seed in enumerate(seeds.tolist()):
            torch.manual_seed(seed)
            row = slice(game, game + 1)
            one = {key: x[row] for key, x in obs.items()} if isinstance(obs, dict) else obs[row]
            actions.append(model.predict(one, deterministic=False)[0][0])
    return np.stack(actions)


_RENAMED = {"features_extractor.encoder.": "encoder.", "action_net.": "head.logits.", "value_net.": "value."}
"""Beginnings of names in an SB3 policy, and what they are called in an ``ActorCritic``."""


class EncoderExtractor(BaseFeaturesExtractor):
    """``agents.encoders.Encoder`` as SB3's features extractor.

    Args:
        observation_space: a Dict of Boxes, or a Box (which becomes the key ``vector``).
        config: the encoder's sizes, as ``EncoderConfig.model_dump`` gives them.
    """

    def __init__(self, observation_space: spaces.Space, config: Mapping[str, Any]) -> None:
        sizes = EncoderConfig(**config)
        super().__init__(observation_space, sizes.hidden)
        self.encoder = Encoder(sizes, obs_specs(observation_space))

    def forward(self, observations: Tensor | Mapping[str, Tensor]) -> Tensor:
        """Features [N, hidden]."""
        if isinstance(observations, Tensor):
            observations = {"vector": observations}
        return self.encoder(observations)


def network_kwargs(config: ModelConfig) -> dict[str, Any]:
    """``policy_kwargs`` that make SB3's actor-critic exactly our ``ActorCritic`` with one stream.

    One shared encoder, no layers between it and the two linear heads. SB3 itself then initialises as we do
    (orthogonal, gain sqrt 2 in the encoder, 0.01 in the policy head, 1 in the value head) and uses Adam with
    an epsilon of 1e-5.

    Raises:
        ValueError: the network has a recurrent core, which SB3's policies have not.
    """
    if config.core != "none":
        raise ValueError(f"model.core is '{config.core}', but Stable-Baselines3 policies have no memory; allowed: none")
    return {
        "features_extractor_class": EncoderExtractor,
        "features_extractor_kwargs": {"config": config.encoder.model_dump()},
        "net_arch": [],
        "normalize_images": False,
    }


def actor_critic_weights(policy: ActorCriticPolicy) -> dict[str, np.ndarray]:
    """Weights of a policy built with ``network_kwargs``, under an ``ActorCritic``'s names."""
    weights = {}
    for name, tensor in policy.state_dict().items():
        for theirs, ours in _RENAMED.items():
            if name.startswith(theirs):
                weights[ours + name.removeprefix(theirs)] = _array(tensor)
    return weights


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy().copy()
