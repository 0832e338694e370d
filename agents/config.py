"""Configuration of agents and learners (imports no torch, so that commands start fast)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

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
