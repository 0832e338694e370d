"""What the learned caption models learn, say and pay, on small sets of captions."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from envs.captions import caption_id, template_of
from rewards.labels.lexicon import Lexicon
from rewards.labels.questions import Answer, Question
from rewards.oni.calibration import fit_temperature, log_loss
from rewards.oni.classification import ClassificationModel
from rewards.oni.config import ClassificationConfig, RankingConfig
from rewards.oni.learned import StepBudget
from rewards.oni.networks import weighted_cross_entropy
from rewards.oni.oni_kind import caption_model
from rewards.oni.ranking import RankingModel, bradley_terry_loss
from rewards.oni.retrieval import RetrievalModel

SLOW = {"min_labels": 32, "steps_per_label": 0.5, "steps_per_update": 4}
"""A schedule that spends little."""

FOES = ("newt", "jackal", "grid bug", "sewer rat", "lichen", "kobold", "gnome", "fox", "hill orc", "giant ant")
EVENTS = (
    "You kill the {foe}!", "You destroy the {foe}!", "The {foe} bites!", "The {foe} misses!", "You miss the {foe}.",
    "The {foe} hits!", "You hit the {foe}.", "You kill the {foe}! You hear the noise.", "The {foe} just misses!",
)  # fmt: skip
OTHERS = (
    "Welcome to experience level N.", "_ - N gold piece.", "You find the hidden door.", "You open the door.",
    "The door opens.", "You feel more confident in your weapon skills.", "WHAMM! You break open the lock.",
    "It's the wall.", "This door is locked.", "You have nothing to fire.", "You see no door there.", "Never mind.",
    "You don't have anything to eat.", "You stop. Your kitten is in the way.", "You are hungry.", "You faint.",
    "What the strange direction! Never mind.", "You can't go down here.", "There is nothing here to pick up.",
)  # fmt: skip
CAPTIONS = [event.format(foe=foe) for event in EVENTS for foe in FOES] + list(OTHERS)
VERDICTS = {text: Lexicon.packaged().judge(text) for text in CAPTIONS}
LEVELS = {"helpful": 2, "neutral": 1, "unhelpful": 0}


def single(text):
    return Answer(Question.single(text), float(VERDICTS[text] == "helpful"))


def compared(first, second):
    difference = LEVELS[VERDICTS[first]] - LEVELS[VERDICTS[second]]
    return Answer(Question.pair(first, second), 0.5 + 0.5 * np.sign(difference))


def named(texts):
    return {caption_id(text): text for text in texts}


def value(model, text):
    return model.value(caption_id(text))


def taught(config, answers, texts=CAPTIONS, updates=40, seed=0, counts=None):
    """A model that met the texts and had all answers at once, after so many updates."""
    model = caption_model(config, seed)
    model.meet(named(texts))
    model.count(counts or {})
    model.learn(answers)
    for _ in range(updates - 1):
        model.learn([])
    return model


def test_captions_of_unseen_templates_are_classified_from_the_words_that_they_share():
    seen = [text for text in CAPTIONS if not template_of(text).startswith(("You destroy", "You kill _! ", "_ just"))]
    model = taught(ClassificationConfig(**SLOW), [single(text) for text in seen])
    unseen = [text for text in CAPTIONS if text not in seen]
    right = [value(model, text) == (VERDICTS[text] == "helpful") for text in unseen]
    assert len(unseen) == 30 and np.mean(right) > 0.6
    assert np.mean([value(model, text) == (VERDICTS[text] == "helpful") for text in seen]) > 0.9
    figures = model.metrics()
    assert figures["labels"] == len(seen) and 0 < figures["held_out_labels"] < len(seen)
    assert figures["positive_share"] == pytest.approx(np.mean([VERDICTS[text] == "helpful" for text in seen]))
    assert figures["held_out_accuracy"] > 0.7 and 0 <= figures["held_out_calibration_error"] < 0.5


def test_no_member_learns_from_what_it_is_judged_by():
    model = ClassificationModel(ClassificationConfig(**SLOW, held_out_share=0.2, bootstrap=True), 1)
    model.learn([single(text) for text in CAPTIONS])
    weights, texts = np.stack(model._weights), [model._corpus.texts[row] for row in model._rows]
    judged = set(model._held_out)
    assert judged and (weights.sum(0) > 0).all()
    for member in range(3):
        learnt = {template_of(text) for text, w in zip(texts, weights[:, member], strict=True) if w > 0}
        assert not learnt & {template_of(texts[at]) for at, by in judged if by == member}


def test_comparisons_are_held_out_where_either_template_is():
    pairs = [compared(a, b) for a, b in zip(CAPTIONS, CAPTIONS[::-1], strict=True) if a < b]
    model = RankingModel(RankingConfig(**SLOW, held_out_share=0.2), 1)
    model.learn(pairs)
    weights = np.stack(model._weights)
    assert model._held_out
    for member in range(3):
        judged = [model._pairs[at] for at, by in model._held_out if by == member]
        left_out = {row for row, fold in enumerate(model._corpus.folds) if fold == member}
        learnt = {row for pair, w in zip(model._pairs, weights[:, member], strict=True) if w > 0 for row in pair}
        assert not learnt & left_out and all(left_out & set(pair) for pair in judged)


def test_soft_targets_teach_probabilities():
    sure, unsure = [f"A {word}." for word in ("b", "d", "f", "h")], [f"C {word}." for word in ("b", "d", "f", "h")]
    answers = [Answer(Question.single(text), 1.0, 0.95) for text in sure]
    answers += [Answer(Question.single(text), 0.0, 0.3) for text in unsure]
    config = ClassificationConfig(
        output="probability",
        balance_classes=False,
        min_labels=8,
        held_out_share=0,
        steps_per_update=4,
        steps_per_label=20,
        threshold=0.9,
    )
    model = taught(config, answers, [*sure, *unsure], updates=50)
    assert [value(model, text) for text in sure] == pytest.approx([0.95] * 4, abs=0.05)
    assert [value(model, text) for text in unsure] == pytest.approx([0.3] * 4, abs=0.08)
    strict = taught(config.replace(output="binary", threshold=0.97), answers, sure, updates=50)
    assert [value(strict, text) for text in sure] == [0.0] * 4


def test_a_rare_class_weighs_as_much_as_the_other():
    model = ClassificationModel(ClassificationConfig(**SLOW), 0)
    for at, text in enumerate(CAPTIONS[:10]):
        model.learn([Answer(Question.single(text), float(at < 2))])
    # 10 / (2 * 2) for one of two positives, 10 / (2 * 8) for one of eight negatives.
    targets, weights = model._balanced(np.array([1.0, 0.0, 0.5]))
    assert weights.tolist() == [2.5, 0.625, 1.5625] and targets.tolist() == [1, 0, pytest.approx(1.25 / 1.5625)]


def test_soft_labels_teach_what_hard_labels_in_that_mix_teach():
    # Five captions of the same n-grams each: one in five is helpful, and three in five.
    spellings = ("{}!", "{} !", " {}!", "{}! ", " {} !")
    groups = {share: [spelling.format(word) for spelling in spellings] for word, share in (("A", 1), ("B", 3))}
    hard = [Answer(Question.single(t), float(i < share)) for share, g in groups.items() for i, t in enumerate(g)]
    soft = [Answer(Question.single(t), float(share > 2), share / 5) for share, g in groups.items() for t in g]
    config = ClassificationConfig(output="probability", held_out_share=0, steps_per_update=4, steps_per_label=20)
    texts = [text for group in groups.values() for text in group]
    models = [taught(config, answers, texts, updates=50) for answers in (hard, soft)]
    by_hard, by_soft = ([value(model, text) for text in texts] for model in models)
    assert by_soft == pytest.approx(by_hard, abs=1e-3)
    # Four in ten are helpful, so that a helpful one weighs 10 / 8 and another 10 / 12.
    assert by_soft[0] == pytest.approx(0.25 / (0.25 + 0.8 / 1.2), abs=0.02)
    assert by_soft[5] == pytest.approx(0.75 / (0.75 + 0.4 / 1.2), abs=0.02)


def test_no_label_is_judged_at_a_temperature_that_it_helped_to_fit():
    config = ClassificationConfig(**SLOW, held_out_share=0.2, min_calibration_labels=20)
    model = ClassificationModel(config, 0)
    model.meet(named(CAPTIONS))
    for _ in range(40):
        model.learn([single(text) for text in CAPTIONS])
    at, member = np.array(model._held_out).T
    logits = model._scores[member, np.array(model._rows)[at]]
    targets, weights = model._balanced(np.array(model._targets)[at])
    judged = logits.copy()
    for own in (member == k for k in range(3)):
        judged[own] /= fit_temperature(logits[~own], targets[~own], weights[~own])
    figures = model.metrics()
    assert figures["held_out_log_loss"] == pytest.approx(log_loss(judged, targets, weights))
    assert figures["temperature"] == pytest.approx(fit_temperature(logits, targets, weights))
    assert figures["held_out_log_loss"] != pytest.approx(log_loss(logits / figures["temperature"], targets, weights))


def test_a_soft_value_without_a_verdict_is_no_label():
    for model, question in (
        (ClassificationModel(ClassificationConfig(), 0), Question.single("Ouch!")),
        (RankingModel(RankingConfig(), 0), Question.pair("Ouch!", "Never mind.")),
    ):
        model.learn([Answer(question, None, 0.7)])
        assert not model._targets and model.unanswered() == []


@pytest.mark.parametrize("answers", [31, 40])
def test_few_answers_or_one_class_give_no_value(answers):
    few = [Answer(Question.single(text), float(at % 2)) for at, text in enumerate(CAPTIONS[:answers])]
    model = taught(
        ClassificationConfig(**SLOW), few if answers < 32 else [Answer(a.question, 0.0) for a in few], updates=5
    )
    assert value(model, CAPTIONS[0]) is None and not model.take_values()
    assert model.metrics() == {"gradient_steps": 0.0}
    ties = [Answer(Question.pair(CAPTIONS[0], text), 0.5) for text in CAPTIONS[1 : answers + 1]]
    assert value(taught(RankingConfig(**SLOW), ties, updates=5), CAPTIONS[0]) is None


def test_the_first_values_wait_for_the_steps_that_the_first_labels_bought():
    model = taught(ClassificationConfig(**SLOW), [single(text) for text in CAPTIONS], updates=3)
    assert model.metrics() == {"gradient_steps": 12.0} and not model.take_values()
    model.learn([])
    assert model.metrics()["gradient_steps"] == 16 and len(model.take_values()) == len(CAPTIONS)


def test_a_burst_that_buys_more_steps_than_may_be_owed_still_gives_values():
    burst = [single(text) for text in CAPTIONS[:60]]
    config = ClassificationConfig(min_labels=50, steps_per_label=8, max_steps_owed=32, steps_per_update=8)
    assert not taught(config, burst, updates=3).take_values()
    model = taught(config, burst, updates=4)
    assert model.metrics()["gradient_steps"] == 32 and len(model.take_values()) == len(CAPTIONS)


def test_no_value_is_that_of_the_initial_weights():
    config = ClassificationConfig(min_labels=2, steps_per_label=0.25, steps_per_update=8)
    answers = [Answer(Question.single(text), float(at % 2)) for at, text in enumerate(CAPTIONS[:4])]
    assert not taught(config, answers[:3], updates=9).take_values()
    model = taught(config, answers, updates=1)
    assert model.metrics()["gradient_steps"] == 1 and len(model.take_values()) == len(CAPTIONS)


def test_steps_bought_in_small_parts_are_not_lost_to_rounding():
    budget = StepBudget(0.1, 4, 256)
    for _ in range(10):
        budget.earn(1)
    assert budget.spend() == 1 and budget.spend() == 0


def test_training_ends_when_labels_stop_coming():
    config = ClassificationConfig(**SLOW)
    model = taught(config, [single(text) for text in CAPTIONS[:90]], updates=1)
    assert model.metrics()["gradient_steps"] == 4
    for _ in range(30):
        model.learn([])
    assert model.metrics()["gradient_steps"] == 45
    model.take_values()
    model.learn([])
    assert not model.take_values()


def test_new_captions_are_valued_at_once_and_others_when_a_refresh_is_due():
    config = ClassificationConfig(refresh_updates=3, steps_per_update=4, min_labels=8, steps_per_label=0.5)
    model = taught(config, [single(text) for text in CAPTIONS[:60]], CAPTIONS[:60], updates=1)
    assert len(model.take_values()) == 60
    news = []
    for at in range(1, 5):
        model.meet(named([CAPTIONS[60 + at]]))
        model.learn([])
        news.append({ident for ident, _ in model.take_values()})
        assert caption_id(CAPTIONS[60 + at]) in news[-1]
    assert len(news[0]) == len(news[1]) == 1
    slow = ClassificationConfig(
        refresh_updates=1,
        refresh_captions_per_update=10,
        steps_per_update=4,
        min_labels=8,
        steps_per_label=0.5,
        output="probability",
    )
    model = taught(slow, [single(text) for text in CAPTIONS[:60]], CAPTIONS[:60], updates=1)
    sizes = [len(model.take_values())]
    for _ in range(6):
        model.learn([])
        sizes.append(len(model.take_values()))
    assert sizes == [60, 0, 0, 0, 0, 0, 60]  # 60 captions at 10 an update: every sixth


def test_ranking_orders_captions_and_pays_those_above_the_quantile():
    rng = np.random.default_rng(0)
    pairs = [tuple(rng.choice(CAPTIONS, 2, replace=False)) for _ in range(400)]
    counts = {caption_id("It's the wall."): 20}
    model = taught(
        RankingConfig(**SLOW, quantile=0.6), [compared(*map(str, p)) for p in pairs], counts=counts, updates=60
    )
    paid = {text: value(model, text) for text in CAPTIONS}
    observed = [(paid[text], counts.get(caption_id(text), 1)) for text in CAPTIONS]
    nothing = sum(number for z, number in observed if z == 0) / sum(number for _, number in observed)
    assert 0.6 <= nothing < 0.7
    mean = {level: np.mean([paid[t] for t in CAPTIONS if VERDICTS[t] == level]) for level in LEVELS}
    assert mean["helpful"] > mean["unhelpful"] and mean["helpful"] > 0.5
    threshold = model._normalisation.threshold
    assert all(z == 0 or z >= threshold - 1e-6 for z in paid.values()) and max(paid.values()) > threshold
    figures = model.metrics()
    assert figures["paid_share"] == pytest.approx(1 - nothing)
    ties = np.mean([VERDICTS[a] == VERDICTS[b] for a, b in {tuple(sorted(p)) for p in pairs}])
    assert figures["tie_share"] == pytest.approx(ties) and figures["held_out_accuracy"] > 0.5


def test_ties_are_verdicts_not_soft_values():
    rng = np.random.default_rng(0)
    pairs = [Question.pair(one, other) for one, other in pairwise(CAPTIONS[:67])]
    ties = [Answer(pair, 0.5, 0.5 + rng.uniform(-0.01, 0.01)) for pair in pairs]
    model = taught(RankingConfig(**SLOW), ties, updates=20)
    assert model.metrics() == {"gradient_steps": 0.0} and not model.take_values()
    others = [Question.pair(CAPTIONS[-1], text) for text in CAPTIONS[:4]]
    decided = [
        Answer(pair, said, p) for pair, said, p in zip(others, (1, 1, 0, 1), (0.9, 0.501, 0.1, 0.7), strict=True)
    ]
    figures = taught(RankingConfig(**SLOW), [*ties, *decided], updates=20).metrics()
    assert figures["tie_share"] == 66 / 70 and figures["first_shown_better"] == 0.75


def test_accuracy_is_that_of_verdicts_and_survives_a_resume():
    config = RankingConfig(**SLOW, held_out_share=0.2)
    shown = [(a, b) for a, b in zip(CAPTIONS, CAPTIONS[::-1], strict=True) if a != b]
    hard = [compared(a, b) for a, b in shown]
    soft = [Answer(h.question, h.value, (h.soft_value + 0.5 + 0.02 * (i % 2)) / 2) for i, h in enumerate(hard)]
    model = taught(config, soft, updates=30)
    at, member = np.array(model._held_out).T
    first, second = np.array(model._pairs)[at].T
    above = model._scores[member, first] > model._scores[member, second]
    said = {(a.question.text, a.question.second_text): a.value for a in soft}
    texts = model._corpus.texts
    right = [
        better == (said[texts[a], texts[b]] == 1)
        for better, a, b in zip(above, first, second, strict=True)
        if said[texts[a], texts[b]] != 0.5
    ]
    assert 0 < len(right) < len(at) and model.metrics()["held_out_accuracy"] == pytest.approx(np.mean(right))
    copy = caption_model(config, 0)
    copy.load_state_dict(model.state_dict())
    for each in (model, copy):
        each.count({caption_id(CAPTIONS[0]): 10_000})
        for _ in range(5):
            each.learn([])
    assert copy.metrics() == model.metrics()


def test_the_normalisation_follows_observed_captions():
    pairs = [compared(a, b) for a, b in zip(CAPTIONS, CAPTIONS[37:], strict=False)]
    config = RankingConfig(**SLOW, refresh_updates=1)
    model = taught(config, pairs, updates=40)
    before = {text: value(model, text) for text in CAPTIONS}
    model.learn([])
    assert {text: value(model, text) for text in CAPTIONS} == before
    best = max(before, key=before.__getitem__)
    model.count({caption_id(best): 10_000})
    model.learn([])
    # Almost all observed captions are the best one: it is the mean and the median, and nothing else reaches it.
    assert value(model, best) == pytest.approx(0, abs=0.2)
    assert all(value(model, text) == 0 for text in CAPTIONS if before[text] < before[best])


def test_a_pair_asked_the_other_way_round_is_the_same_pair():
    model = RankingModel(RankingConfig(**SLOW), 0)
    one, other = CAPTIONS[0], CAPTIONS[25]
    model.learn([compared(one, other)])
    model.learn([compared(other, one)])
    assert len(model._pairs) == 1
    model.meet(named([one, other]))
    assert model.questions() == []


def test_answers_of_the_wrong_kind_are_refused():
    with pytest.raises(ValueError, match="single captions, got a comparison"):
        ClassificationModel(ClassificationConfig(), 0).learn([compared(*CAPTIONS[:2])])
    with pytest.raises(ValueError, match="comparisons, got an answer about"):
        RankingModel(RankingConfig(), 0).learn([single(CAPTIONS[0])])


def test_bradley_terry_loss_by_hand():
    scores = torch.tensor([[0.0, np.log(3), 0.0], [0.0, 0.0, 9.0]])
    pairs, targets = np.array([[1, 0], [0, 2]]), np.array([1.0, 0.5])
    # Member 0: p = 3/4 and a tie at p = 1/2, which weighs 3. Member 1 sees the first pair alone, at p = 1/2.
    loss = bradley_terry_loss(scores, pairs, targets, np.array([[1.0, 3.0], [2.0, 0.0]]))
    assert loss.item() == pytest.approx((np.log(4 / 3) + 3 * np.log(2)) / 4 + np.log(2), rel=1e-5)


def test_a_member_without_examples_has_no_loss():
    assert weighted_cross_entropy(torch.ones(2, 1), np.ones(1), np.zeros((2, 1))).item() == 0


def test_retrieval_counts_the_labels_that_it_can_look_up():
    model = RetrievalModel()
    assert model.metrics() == {"labels": 0.0}
    model.learn([single(text) for text in CAPTIONS[:3]] + [Answer(Question.single("Ouch!"), None)])
    model.learn([single(CAPTIONS[0])])
    assert model.metrics() == {"labels": 3.0}
