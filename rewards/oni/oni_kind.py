"""ONI as a kind of reward: a step is paid for its caption, by what an annotator says of captions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from rewards.kinds import RewardKind, ScoringContext
from rewards.labels.config import LabelsConfig
from rewards.labels.label_metrics import METRICS as LABEL_METRICS
from rewards.labels.questions import PromptSpec
from rewards.llm.config import LLMConfig
from rewards.oni.config import CaptionRewardConfig, ClassificationConfig, OniConfig, RankingConfig, RetrievalConfig

if TYPE_CHECKING:
    from rewards.oni.caption_model import CaptionModel
    from rewards.oni.caption_reward import CaptionReward
    from rewards.oni.caption_teacher import CaptionTeacher
    from rewards.teacher import TeachingContext


_METRICS: Mapping[str, str] = MappingProxyType(
    {
        "reward_model/labels": "Answers with a value that the model of captions has learned from or looks up.",
        "reward_model/gradient_steps": "Gradient steps that the model of captions took since the run began.",
        "reward_model/positive_share": "Share of the labels that are above one half (classification).",
        "reward_model/tie_share": "Share of the compared pairs of which the annotator said that neither is better "
        "(ranking).",
        "reward_model/first_shown_better": "Share of the decided pairs whose better caption was shown first; far from "
        "one half, the annotator goes by the order (ranking).",
        "reward_model/paid_share": "Share of the caption occurrences that the model pays: those above the quantile "
        "and the mean (ranking).",
        "reward_model/temperature": "What the classifier's logits are divided by, so that its probabilities are those "
        "of the held-out labels.",
        "reward_model/disagreement": "Mean standard deviation of the ensemble's members, over the observed captions.",
        "reward_model/held_out_labels": "Labels, or pairs, of templates that were kept out of training.",
        "reward_model/held_out_accuracy": "Share of them that the model gets right (ties left out).",
        "reward_model/held_out_balanced_accuracy": "Mean of the accuracies on held-out positives and on held-out "
        "negatives (classification).",
        "reward_model/held_out_log_loss": "Mean log loss on held-out labels or pairs, in nats. Of a classifier with "
        "several members, each one's held-out labels are judged at a temperature fitted on the others'; with a single "
        "member, at one fitted on these very labels, which flatters. Balanced where classes are.",
        "reward_model/held_out_calibration_error": "Expected calibration error on held-out labels, 10 bins, at "
        "the same temperatures as the log loss; where classes are balanced, a soft label t counts as t positives and "
        "1 - t negatives (classification).",
    }
)
"""``{metric name: what it is}``."""


class OniKind(RewardKind[CaptionRewardConfig]):
    """What captions are worth by an annotator's labels (Zheng et al. 2024, arXiv 2410.23022)."""

    name = "oni"
    config = OniConfig
    metrics: ClassVar[Mapping[str, str]] = MappingProxyType({**LABEL_METRICS, **_METRICS})
    usual_weight = 0.1
    pays_captions = True

    def questions(self, config: CaptionRewardConfig, labels: LabelsConfig, llm: LLMConfig) -> Mapping[str, PromptSpec]:
        """Every caption, or pairs of captions."""
        return {"captions": labels.spec(asks_pairs=config.asks_pairs)}

    def model(self, config: CaptionRewardConfig, context: ScoringContext) -> CaptionReward:
        """See ``RewardKind.model``."""
        from rewards.oni.caption_reward import CaptionReward

        return CaptionReward(count_exponent=config.count_exponent)

    def teacher(self, config: CaptionRewardConfig, context: TeachingContext) -> CaptionTeacher:
        """See ``RewardKind.teacher``."""
        from rewards.inquiry import Inquiry
        from rewards.oni.caption_teacher import CaptionTeacher

        inquiry = Inquiry.opened(context, "captions", context.labels.spec(asks_pairs=config.asks_pairs))
        return CaptionTeacher(caption_model(config, context.seed), inquiry, context.phases)


def caption_model(config: CaptionRewardConfig, seed: int) -> CaptionModel:
    """What learns from the annotator's answers, seeded by the run's seed."""
    return _MODELS[type(config)](config, seed)


def _retrieval(config: Any, seed: int) -> CaptionModel:
    from rewards.oni.retrieval import RetrievalModel

    return RetrievalModel()


def _classification(config: Any, seed: int) -> CaptionModel:
    from rewards.oni.classification import ClassificationModel

    return ClassificationModel(config, seed)


def _ranking(config: Any, seed: int) -> CaptionModel:
    from rewards.oni.ranking import RankingModel

    return RankingModel(config, seed)


_MODELS: Mapping[type[CaptionRewardConfig], Callable[[Any, int], CaptionModel]] = {
    RetrievalConfig: _retrieval,
    ClassificationConfig: _classification,
    RankingConfig: _ranking,
}
"""What each configuration asks for; imported when it is built, since torch takes time that flags do not have."""
