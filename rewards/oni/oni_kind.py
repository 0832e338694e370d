"""ONI as a kind of reward: captions, judged by an annotator, pay those who see them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from rewards.kinds import RewardKind, ScoringContext
from rewards.labels.config import LabelsConfig
from rewards.labels.prompts import PromptSpec
from rewards.llm.config import LLMConfig
from rewards.oni.config import CaptionRewardConfig, ClassificationConfig, OniConfig, RankingConfig, RetrievalConfig

if TYPE_CHECKING:
    from rewards.oni.caption_model import CaptionModel
    from rewards.oni.caption_reward import CaptionReward
    from rewards.oni.caption_teacher import CaptionTeacher
    from rewards.teacher import TeachingContext


class OniKind(RewardKind[CaptionRewardConfig]):
    """What captions are worth by an annotator's labels (Zheng et al. 2024, arXiv 2410.23022)."""

    name = "oni"
    config = OniConfig
    usual_weight = 0.1
    pays_captions = True

    def questions(self, config: CaptionRewardConfig, labels: LabelsConfig, llm: LLMConfig) -> Mapping[str, PromptSpec]:
        """Every caption, or pairs of captions."""
        return {"captions": labels.spec(asks_pairs=config.asks_pairs)}

    def model(self, config: CaptionRewardConfig, context: ScoringContext) -> CaptionReward:
        """See ``RewardKind.model``."""
        from rewards.oni.caption_reward import CaptionReward

        return CaptionReward(config.count_exponent)

    def teacher(self, config: CaptionRewardConfig, context: TeachingContext) -> CaptionTeacher:
        """See ``RewardKind.teacher``."""
        from rewards.labels.inquiry import Inquiry
        from rewards.oni.caption_teacher import CaptionTeacher

        feed = context.open_feed("captions", context.labels.spec(asks_pairs=config.asks_pairs))
        inquiry = Inquiry(feed, "captions", waits=context.labels.mode == "barrier")
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
