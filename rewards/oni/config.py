"""Configuration of ONI's rewards: which caption model says what a caption is worth."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from envs.data import Config
from rewards.parts import PartConfig


class CaptionRewardConfig(PartConfig):
    """What the three rewards have in common."""

    weight: Annotated[float, Field(ge=0.0)] = 0.0
    """Factor of the part; 0 switches it off, and nothing is labelled."""
    stream: Literal["extrinsic", "intrinsic"] = "intrinsic"
    """The stream, and so the value head, that it feeds."""
    count_exponent: Annotated[float, Field(ge=0.0)] = 3.0
    """Power of the within-episode count (3 in ONI)."""

    @property
    def asks_pairs(self) -> bool:
        """The annotator compares captions, rather than judging them one by one."""
        return False


class RetrievalConfig(CaptionRewardConfig):
    """ONI retrieval: a caption is worth its label."""

    kind: Literal["retrieval"] = "retrieval"


class NGramsConfig(Config):
    """Hashed words and pairs of words, embedded and summed, and one hidden layer."""

    kind: Literal["ngrams"] = "ngrams"
    buckets: Annotated[int, Field(ge=256, le=1 << 20)] = 8192
    """Rows of the table of embeddings, a power of two; n-grams that fall into the same row are one."""
    width: Annotated[int, Field(ge=1, le=1024)] = 16
    """Units of each member's hidden layer."""
    chars: tuple[Annotated[int, Field(ge=1, le=8)], ...] = ()
    """Lengths of runs of characters to read beside words; none = words only."""

    @field_validator("buckets")
    @classmethod
    def _power_of_two(cls, buckets: int) -> int:
        if buckets & (buckets - 1):
            raise ValueError(f"must be a power of two, {buckets} is not")
        return buckets


class CharsConfig(Config):
    """Convolutions over characters, as in ONI, but small."""

    kind: Literal["chars"] = "chars"
    width: Annotated[int, Field(ge=1, le=1024)] = 32
    """Channels of each of the two convolutions of each member."""
    max_length: Annotated[int, Field(ge=16, le=4096)] = 256
    """The rest of a longer caption is not read."""


class LearnedConfig(CaptionRewardConfig):
    """What the two rewards with a network have in common."""

    network: Annotated[NGramsConfig | CharsConfig, Field(discriminator="kind")] = NGramsConfig()
    """What reads captions. Characters judge a little better from 200 labels, and a gradient step of theirs takes some
    ninety times as long (`python -m tests.benchmarks judges`), too long beside training."""
    members: Annotated[int, Field(ge=1, le=5)] = 3
    """Networks of the ensemble. Each leaves templates of its own out and is judged by them, so that three judge
    three times as many labels as one, and no kind of message is left out by all."""
    aggregate: Literal["mean", "median", "mean_minus_std", "min"] = "mean"
    """How the members' opinions become one; the last two pay less where they differ."""
    bootstrap: bool = False
    """Members learn from different samples of the answers, so that they differ more; each learns less."""
    held_out_share: Annotated[float, Field(ge=0.0, le=0.2)] = 0.1
    """Share of caption templates that each member leaves out; 0 = none, and no figures nor calibration."""
    learning_rate: PositiveFloat = 1e-2
    """Of AdamW."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.01
    """Of AdamW."""
    batch_size: PositiveInt = 256
    """Answers in a gradient step."""
    min_labels: Annotated[int, Field(ge=2)] = 8
    """Answers before the first gradient step; the first values come when the steps that these bought, at most
    ``max_steps_owed``, are taken."""
    steps_per_label: PositiveFloat = 8.0
    """Gradient steps that each new answer buys: when answers stop coming, so does training. A small level says some
    dozen different things, and the last one must be learned too."""
    max_steps_owed: PositiveInt = 256
    """Most bought steps that wait to be taken: where answers keep coming, they share them."""
    steps_per_update: PositiveInt = 2
    """Most gradient steps in one PPO update; what else was bought is taken later."""
    refresh_updates: PositiveInt = 8
    """PPO updates between two times that all captions are valued by the model as it is then; new captions never
    wait."""
    refresh_captions_per_update: PositiveInt = 1000
    """Where there are many captions, they are all valued less often, so that an update values no more than so many
    on average."""


class ClassificationConfig(LearnedConfig):
    """ONI classification: a network says how likely a caption is helpful."""

    kind: Literal["classification"] = "classification"
    threshold: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    """A caption pays 1 where p(helpful) is above this, else 0."""
    output: Literal["binary", "probability"] = "binary"
    """binary: 1 or 0, as in ONI; probability: p(helpful) itself."""
    balance_classes: bool = True
    """Helpful captions and others weigh alike, however rare one kind is, and p is as if both were as frequent. A soft
    label of 0.2 counts as a fifth of a helpful caption and four fifths of another."""
    min_calibration_labels: Annotated[int, Field(ge=2)] = 50
    """Held-out answers before probabilities are calibrated on them."""


class RankingConfig(LearnedConfig):
    """ONI ranking: a network scores captions so that the better one of a pair scores higher."""

    kind: Literal["ranking"] = "ranking"
    quantile: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    """Captions whose score exceeds this quantile of the observed captions, and their mean, pay their normalised score;
    others 0."""
    pairs_per_update: PositiveInt = 8
    """Most pairs that are asked in one PPO update."""
    max_comparisons: PositiveInt = 16
    """A caption that was compared so often gets no comparison for its own sake: when no new captions come, asking
    ends."""

    @property
    def asks_pairs(self) -> bool:
        """The annotator compares captions."""
        return True


OniConfig = Annotated[RetrievalConfig | ClassificationConfig | RankingConfig, Field(discriminator="kind")]
"""Every kind of caption model; a new one is one more class with ``kind``, and a line in ``oni_kind``."""
