"""Every caption model through the conformance suite."""

import pytest

from rewards.labels.questions import Question
from rewards.oni.config import CharsConfig, ClassificationConfig, NGramsConfig, RankingConfig, RetrievalConfig
from rewards.oni.oni_kind import caption_model
from tests.rewards.oni import caption_models

SOON = {"network": NGramsConfig(buckets=1024, width=4), "min_labels": 12, "steps_per_label": 0.5}
SOON |= {"steps_per_update": 4, "refresh_updates": 4}
SMALL = SOON | {"min_calibration_labels": 4}
PAIRS = SOON | {"pairs_per_update": 24}
CHARS = CharsConfig(width=4, max_length=48)

MODELS = {
    "retrieval": RetrievalConfig(),
    "classification": ClassificationConfig(**SMALL),
    "classification, one member, probabilities": ClassificationConfig(**SMALL, members=1, output="probability"),
    "classification, characters": ClassificationConfig(
        **SMALL | {"network": CHARS, "steps_per_label": 0.1, "steps_per_update": 1}, members=2
    ),
    "ranking": RankingConfig(**PAIRS),
    "ranking, pessimistic": RankingConfig(**PAIRS, members=2, aggregate="min", quantile=0.2, held_out_share=0.0),
}


@pytest.mark.parametrize("name", MODELS)
def test_conformance(name):
    config = MODELS[name]
    texts = caption_models.CAPTIONS
    if config.asks_pairs:
        questions = [Question.pair(one, other) for one, other in zip(texts, texts[7:], strict=False)]
    else:
        questions = [Question.single(text) for text in texts[::2]]
    caption_models.check(lambda: caption_model(config, seed=3), questions)
