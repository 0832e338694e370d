"""Configuration of agents and learners (imports no torch, so that commands start fast)."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from envs.data import Config

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


ENCODED_KEYS = ("glyphs_crop", "blstats", "message", "map_summary", "vector")
"""Observation keys that the network can read."""


class EncoderConfig(Config):
    """How observations become features; keys that the games do not give are left out."""

    glyph_embedding: Positive = 16
    """Channels of a glyph's embedding on the egocentric crop."""
    crop_channels: Positive = 32
    """Channels of both 3x3 convolutions on the crop."""
    crop_stride: Annotated[int, Field(ge=1, le=3)] = 2
    """Stride of the second one; the reference network has 1, and an embedding of 32."""
    blstats_hidden: Positive = 64
    """Width of the bottom line statistics' layers."""
    blstats_layers: Annotated[int, Field(ge=1, le=4)] = 1
    """How many; the reference network has 2."""
    map_hidden: Positive = 64
    """Width of the full-map summary's layer."""
    message_bytes: Annotated[int, Field(ge=16, le=256)] = 64
    """Leading bytes of the message that the network reads."""
    message_channels: Positive = 32
    """Channels of the message's convolutions."""
    vector_hidden: Positive = 64
    """Width of the layer for plain vector observations."""
    hidden: Positive = 256
    """Width of the joint feature vector."""


class CategoricalConfig(Config):
    """One discrete action a step, drawn from the softmax of a linear layer."""

    kind: Literal["categorical"] = "categorical"


HeadConfig = Annotated[CategoricalConfig, Field(discriminator="kind")]
"""The actor heads, discriminated by ``kind``; ``agents.heads`` says which class each builds."""


class ModelConfig(Config):
    """The network: encoder, core, actor head."""

    encoder: EncoderConfig = EncoderConfig()
    core: Literal["none", "gru"] = "none"
    """Memory between steps."""
    core_hidden: Positive = 256
    """Width of the recurrent state."""
    head: HeadConfig = CategoricalConfig()


class PlanTransformerConfig(Config):
    """What every plan head has: a small pre-norm transformer, and a condition that is dropped now and then."""

    width: Positive = 64
    """Width of the residual stream; a whole number of heads."""
    layers: Positive = 2
    """Attention layers, each with a perceptron four times as wide."""
    heads: Positive = 4
    """Attention heads in each layer."""
    condition_dropout: Share = 0.1
    """Probability that a plan is learned without its goal and return, so that guidance has something to lead away
    from."""

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no whole number of {self.heads} heads")
        return self


class LongPlanConfig(PlanTransformerConfig):
    """Plans of several tokens."""

    horizon: Positive = 16
    """H, tokens in a plan."""


class MaskedConfig(LongPlanConfig):
    """Absorbing diffusion over action tokens: filled in in any order, several tokens a pass."""

    kind: Literal["masked"] = "masked"
    maskings: Positive = 1
    """Ways in which each plan is masked in one update."""


class AutoregressiveConfig(LongPlanConfig):
    """One token after the other, each seeing those before it."""

    kind: Literal["autoregressive"] = "autoregressive"


class FactorisedConfig(LongPlanConfig):
    """All tokens in one pass, none of which sees another."""

    kind: Literal["factorised"] = "factorised"


class OneStepConfig(PlanTransformerConfig):
    """Plans of a single token: behaviour cloning."""

    kind: Literal["one_step"] = "one_step"
    horizon: Literal[1] = 1
    """H: one token."""


PlanHeadConfig = Annotated[
    MaskedConfig | AutoregressiveConfig | FactorisedConfig | OneStepConfig, Field(discriminator="kind")
]
"""The plan heads, discriminated by ``kind``; ``agents.heads.PLAN_HEADS`` says which class each builds."""


class Decoding(Config):
    """How a plan head fills in its tokens; heads with one way of doing so read temperature and guidance alone."""

    kind: Literal["passes", "entropy", "left_to_right"] = "entropy"
    """A given number of passes; as many tokens a pass as the network is sure enough of (Ben-Hamu et al. 2025, the
    entropy-bounded sampler); or one after the other from the first."""
    passes: Positive = 3
    """Passes over the network, with ``kind=passes``; each fills in the same number of tokens."""
    order: Literal["random", "confidence"] = "random"
    """Which tokens come first, with ``kind=passes``: drawn at random, or those with the likeliest best action."""
    entropy_bound: Annotated[float, Field(ge=0)] = 0.5
    """Nats, with ``kind=entropy``: a pass fills in the surest tokens while their entropies, without the largest of
    them, add up to no more."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Divides the logits."""
    guidance: Annotated[float, Field(ge=0)] = 1.0
    """w in ``null + w (condition - null)`` over logits; 1 = the condition alone, at the price of one network
    evaluation, not two; 0 = neither goal nor return."""


class PPOConfig(Config):
    """Proximal policy optimisation (Schulman et al. 2017)."""

    learning_rate: Annotated[float, Field(gt=0)] = 3e-4
    """Adam's step size."""
    anneal: Literal["none", "linear"] = "none"
    """Learning rate over the run: constant, or linear to zero at the last step."""
    epochs: Positive = 3
    """Passes over each batch."""
    minibatch: Positive = 512
    """Samples in each gradient step (with a recurrent core: the nearest whole number of sequences)."""
    gae_lambda: Share = 0.95
    """Trace decay of advantages."""
    clip: Annotated[float, Field(gt=0)] = 0.2
    """Clip range of the probability ratio."""
    entropy: Annotated[float, Field(ge=0)] = 0.01
    """Weight of the entropy bonus."""
    value: Annotated[float, Field(ge=0)] = 0.5
    """Weight of the value loss."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 0.5
    """Gradients are scaled down to this norm."""
    normalise_advantage: bool = True
    """Normalise advantages in each minibatch."""
    advantage_std_floor: Annotated[float, Field(ge=0)] = 0.05
    """Smallest standard deviation that advantages are divided by: where there is no reward yet, noise of the
    value heads is not blown up into a reason to act."""
    rho_max: Annotated[float, Field(gt=0)] = 1.0
    """V-trace: clip of the ratio that weighs a step."""
    c_max: Annotated[float, Field(gt=0)] = 1.0
    """V-trace: clip of the ratio that carries the trace."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the network; auto takes bf16 where the processor has it."""


class CriticConfig(Config):
    """A critic of chunks of actions, learned from logged play by implicit Q-learning (``agents.critic``)."""

    reward: str = "env"
    """Reward column of the data set that it learns to foresee; goal = minus one a step until a goal is reached, for
    goals that are squares (needs goals other than none)."""
    gamma: Annotated[float, Field(gt=0, lt=1)] = 0.99
    """Discount a step."""
    chunk_steps: Annotated[int, Field(ge=1, le=16)] = 4
    """E: actions in a chunk; a planner executes as many before it plans again."""
    expectile: Annotated[float, Field(gt=0.5, lt=1)] = 0.9
    """Of the values of logged chunks, what a state is worth."""
    hidden: Positive = 128
    """Width of its layers."""
    action_embedding: Positive = 16
    """Width of an action's embedding."""
    updates: Positive = 1
    """Gradient steps in each update of the run: a critic is cheaper than a plan head, and learns more slowly."""
    batch: Positive = 512
    """Chunks in each of them."""
    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    """Adam's step size."""
    target_decay: Share = 0.97
    """How much of itself the slow copy keeps at each update."""
    cut_share: Share = 0.2
    """Share of chunks that are cut to fewer steps, so that shorter plans can be judged too."""
    random_goals: Share = 0.8
    """Share of goals drawn from all logged squares; the others are later squares of the same episode."""


class OfflineConfig(Config):
    """What is learned from logged play, and how."""

    batch: Positive = 256
    """Plans in each update."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """AdamW's step size, after a warm-up over the first 100 updates."""
    anneal: Literal["none", "linear"] = "linear"
    """Step sizes of head and critic over the run: constant, or linear to zero at the last update."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """AdamW's."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are scaled down to this norm."""
    ema: Share = 0.995
    """Decay of the running mean of the weights, which acts."""
    goals: Literal["none", "hindsight"] = "none"
    """What plans lead to: nothing, or a square on which the same episode stood later (hindsight)."""
    goal_steps: Positive = 16
    """Mean number of steps to a goal of hindsight (geometric, within the episode)."""
    returns: bool = False
    """Condition plans on a bin of the discounted return to come, so that a return can be asked for."""
    return_bins: Annotated[int, Field(ge=2, le=32)] = 32
    """Quantile bins of that return."""
    shuffle_returns: bool = False
    """Control: give each step the return of another, so that asking can change nothing."""
    weighting: Literal["none", "advantage"] = "none"
    """What a plan weighs: the same as every other (cloning), or exp(advantage / beta) by the critic (Peng et al.
    2019)."""
    beta: Annotated[float, Field(gt=0)] = 0.3
    """Temperature of that weight, in standard deviations of the batch's advantages."""
    max_weight: Annotated[float, Field(gt=0)] = 20.0
    """Greatest weight."""
    best_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Learn from this share of the episodes alone, those of the highest return."""


class PlannerConfig(Config):
    """How plans are made where they are executed."""

    mode: Literal["none", "best_of_n", "fk", "svdd", "svdd_r"] = "best_of_n"
    """none = one plan, as drawn; best_of_n = the best of the candidates by the critic; fk = candidates are weighed and
    resampled while they are drawn (Feynman-Kac steering, Singhal et al. 2025); svdd = each goes on with the best of
    a few proposals at each event (Li et al. 2024); svdd_r = svdd, and resampled."""
    candidates: Annotated[int, Field(ge=1, le=1024)] = 8
    """N: plans that are drawn at once, in every mode but none."""
    executed: Annotated[int, Field(ge=1)] | None = None
    """Actions executed before the next plan; none = as many as the critic's chunk has, 1 for a head of horizon 1."""
    decoding: Decoding = Decoding()
    """How candidates are filled in."""
    strength: Annotated[float, Field(gt=0)] = 10.0
    """lambda of fk, which samples in proportion to exp(lambda * score), and 1 / alpha of svdd; scores are in standard
    deviations of the logged chunks' advantages."""
    proposals: Annotated[int, Field(ge=1, le=64)] = 4
    """Of svdd, for each candidate at each event."""
    checkpoints: Annotated[int, Field(ge=1, le=16)] = 3
    """Events, of a plan's drawing, at which fk and svdd look at it."""
    refuse: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Plans are refused that are less likely than this quantile of the logged ones; 0 = none is."""
    warm_start: bool = True
    """One of the candidates goes on with what is left of the last plan."""
    reactive: bool = True
    """Plan again at once where hit points fell, a message came, or a move did not move."""
    ask_return: Share | None = None
    """Quantile of the logged returns that plans are asked for; none = the highest bin, where plans know returns."""
    goal: Literal["asked", "free", "mixed"] = "mixed"
    """Which candidates are asked to lead to the goal, where plans know goals: all; none, so that the head proposes
    freely and the critic alone knows the goal; or one half (mixed, for an even number)."""

    @model_validator(mode="after")
    def _halves(self) -> Self:
        if self.goal == "mixed" and self.mode != "none" and self.candidates % 2:
            raise ValueError(f"goal=mixed halves the candidates: {self.candidates} is odd")
        return self
