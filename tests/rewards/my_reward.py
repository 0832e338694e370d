"""Random network distillation (Burda et al. 2018, arXiv 1810.12894): a learned reward of one's own, in one file."""

from typing import ClassVar

import numpy as np
import torch

from envs.data import RewardPart
from envs.features import rollout_columns
from rewards.kinds import PlainReward, RewardKind
from rewards.parts import PartConfig
from rewards.reporting import Paragraph, Section
from rewards.teacher import Teacher

COLUMNS = ("obs.x", "obs.y", "obs.depth")


class RNDConfig(PartConfig):
    """Pays places that the predictor does not know yet."""

    weight: float = 0.0
    stream: str = "intrinsic"
    normalise: str = "return"
    width: int = 32
    learning_rate: float = 0.02


def network(width, seed):
    """Weights float64 of two layers, the same in every process."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((3, width), (width, 8))]


def error(predictor, target, places):
    """How far the predictor is from the fixed random network, of each place [N, 3]: [N]."""
    first, second = (torch.tanh(places @ weights[0]) @ weights[1] for weights in (predictor, target))
    return ((first - second) ** 2).mean(1)


class RNDReward(PlainReward):
    """Part ``rnd``: the predictor's error at the state that was reached."""

    part_names = ("rnd",)

    def __init__(self, config, seed):
        self.target, self.predictor = network(config.width, seed), network(config.width, seed + 1)

    def places(self, rollout):
        columns = rollout_columns(rollout, COLUMNS)
        return torch.from_numpy(np.stack([columns[name].ravel() / 40.0 for name in COLUMNS], axis=1))

    def score(self, rollout, state):
        value = error(self.predictor, self.target, self.places(rollout)).numpy().astype(np.float32)
        value = value.reshape(rollout.env_reward.shape)
        return {"rnd": RewardPart(value=value, valid=np.ones(value.shape, bool))}, state

    def take(self, news):
        self.predictor, self.version = [torch.from_numpy(weights.copy()) for weights in news], self.version + 1

    def evidence(self, rollout, output, state):
        return self.places(rollout)[::4].numpy(), state

    def state_dict(self):
        return {"predictor": [weights.numpy() for weights in self.predictor], "version": self.version}

    def load_state_dict(self, state):
        self.take(state["predictor"])
        self.version = int(state["version"])


class RNDTeacher(Teacher):
    """Moves the predictor towards the fixed network, where play has been."""

    def __init__(self, config, seed):
        self.config, self.target, self.loss = config, network(config.width, seed), 0.0
        self.predictor = network(config.width, seed + 1)

    def observe(self, evidence):
        weights = [weight.requires_grad_() for weight in self.predictor]
        loss = error(weights, self.target, torch.from_numpy(np.concatenate(evidence))).mean()
        steps = torch.autograd.grad(loss, weights)
        self.predictor = [(w - self.config.learning_rate * g).detach() for w, g in zip(weights, steps, strict=True)]
        self.loss = float(loss.detach())

    def update(self, captions):
        return [weight.detach().numpy() for weight in self.predictor]

    def metrics(self):
        return {"rnd/loss": self.loss}

    def state_dict(self):
        return {"predictor": self.update({}), "loss": self.loss}

    def load_state_dict(self, state):
        self.predictor, self.loss = [torch.from_numpy(w.copy()) for w in state["predictor"]], float(state["loss"])


class RNDKind(RewardKind):
    """The registry's side."""

    name, config, usual_weight = "rnd", RNDConfig, 0.2
    metrics: ClassVar = {"rnd/loss": "Mean error of the predictor over the places of the last update."}

    def columns(self, config):
        return COLUMNS

    def model(self, config, context):
        return RNDReward(config, context.seed)

    def teacher(self, config, context):
        return RNDTeacher(config, context.seed)

    def report(self, run, config, events):
        text = f"Places that the predictor does not know; {config.width} hidden units."
        return Section(anchor="rnd", title="Random network distillation", blocks=[Paragraph(text)])
