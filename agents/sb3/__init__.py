"""Stable-Baselines3 beside Yendor: its algorithms on our games and rewards, its models in our evaluation.

    Games --> GamesVecEnv --> RewardVecEnvWrapper(rewards) --> PPO, A2C
                                                           --> DQN, SAC with RewardReplayBuffer
    saved model (zip) --> load_model --> Sb3Policy --> agents.evaluate

Nothing of SB3's algorithms is changed. Rewards are injected: this package knows their protocol only.
"""

from agents.sb3.replay import DictRewardReplayBuffer, RewardReplayBuffer
from agents.sb3.rewards import RewardVecEnvWrapper
from agents.sb3.sb3_policy import EncoderExtractor, Sb3Policy, actor_critic_weights, load_model, network_kwargs
from agents.sb3.vec_env import GamesVecEnv

__all__ = [
    "DictRewardReplayBuffer",
    "EncoderExtractor",
    "GamesVecEnv",
    "RewardReplayBuffer",
    "RewardVecEnvWrapper",
    "Sb3Policy",
    "actor_critic_weights",
    "load_model",
    "network_kwargs",
]
