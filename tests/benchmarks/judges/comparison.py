"""How good the judges of captions are: the lexicon and the reward models that learn from it, beside grades by hand.

Captions from play are dealt into folds by template (``envs.templates``), so that no caption has a near-duplicate in
another fold. For each fold the reward models learn the lexicon's verdicts on all other folds, as they would in a run
(a few captions an update, the most frequent first), and judge this one. Every figure is over such judgements:

    accuracy        against the lexicon: of captions called helpful or not; of pairs with different verdicts
    calibration     expected calibration error of p(helpful), and of p(the first of a pair is better)
    hand grades     Spearman's rank correlation with the grades, and how often "helpful" meets a grade above 0

The lexicon itself is held to the grades in the same way. Intervals are 95 % bootstrap intervals over templates.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field, PositiveInt

from envs.data import Config
from rewards.oni.calibration import balanced_accuracy, class_weights, expected_calibration_error
from rewards.oni.config import CharsConfig, ClassificationConfig, NGramsConfig, RankingConfig
from rewards.ranks import ranks
from tests.benchmarks.judges.captions import Captions, by_hand, read
from tests.benchmarks.judges.reward_models import Pace, trained_classifier, trained_ranker


class JudgesBench(Config):
    """How good the judges of captions are, beside grades by hand."""

    captions: Path = Path("tests/data/captions/captions.jsonl")
    """Captions from play: ``text`` and ``count``, one JSON object a line (``yendor labels gather``)."""
    grades: Path = Path("tests/data/captions/grades.jsonl")
    """Grades by hand: ``text`` and ``grade``, one JSON object a line."""
    folds: Annotated[int, Field(ge=2)] = 5
    """Parts that the templates are dealt into."""
    captions_per_update: PositiveInt = 32
    """New captions that a model meets in each update."""
    pairs: PositiveInt = 4000
    """Pairs of captions of each fold that ranking is tried on."""
    network_labels: tuple[PositiveInt, ...] = (200,)
    """Networks are compared on so many labels of the first fold's training part."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    """Fixes networks and pairs."""


def measure(flags: JudgesBench) -> tuple[str, dict[str, Any]]:
    """The tables, and all that they stand on.

    Raises:
        UserError: a file cannot be read, or holds something else.
    """
    torch.set_num_threads(1)
    captions, uncovered = read(flags.captions, flags.grades, flags.folds)
    judged, seconds = {}, {}
    for name, judge in (("classification", _classify), ("ranking", _rank)):
        began_s = time.perf_counter()
        judged[name] = judge(captions, flags)
        seconds[name] = time.perf_counter() - began_s
    networks = [_network(kind, labels, captions, flags) for labels in flags.network_labels for kind in _NETWORKS]
    summary = {
        "captions": len(captions.texts),
        "templates": len(np.unique(captions.templates)),
        "uncovered_by_the_lexicon": uncovered,
        "graded": int(np.isfinite(captions.grades).sum()),
        "judges": {
            "lexicon": by_hand(captions.levels.astype(float), captions.levels > 0, captions),
            "classification": judged["classification"].figures
            | by_hand(judged["classification"].opinion, judged["classification"].opinion > 0.5, captions),
            "ranking": judged["ranking"].figures | by_hand(judged["ranking"].opinion, None, captions),
        },
        "networks": networks,
        "seconds": seconds,
    }
    opinions = {name: found.opinion.tolist() for name, found in judged.items()}
    return table(summary), {"summary": summary, "measurements": {"texts": captions.texts, "opinions": opinions}}


@dataclass(frozen=True)
class Judged:
    """What a reward model said of captions whose templates it had not learned from."""

    opinion: np.ndarray
    """float64 [N]."""
    figures: dict[str, Any]


def _classify(captions: Captions, flags: JudgesBench) -> Judged:
    pace = Pace(flags.captions_per_update, flags.seed)
    p = np.zeros(len(captions.texts))
    for fold in range(flags.folds):
        own = captions.folds == fold
        model = trained_classifier(ClassificationConfig(), captions, np.flatnonzero(~own), pace)
        p[own] = model.opinion([captions.texts[i] for i in np.flatnonzero(own)])
    actual = captions.levels > 0
    weights = class_weights(actual.astype(float), 0.5 / actual.mean(), 0.5 / (1 - actual.mean()))
    figures = {
        "accuracy": float(((p > 0.5) == actual).mean()),
        "accuracy_of_occurrences": float(np.average((p > 0.5) == actual, weights=captions.counts)),
        "balanced_accuracy": balanced_accuracy(p > 0.5, actual),
        "calibration_error_balanced": expected_calibration_error(p, actual.astype(float), weights),
        "calibration_error": expected_calibration_error(p, actual.astype(float), np.ones(len(p))),
    }
    return Judged(p, figures)


def _rank(captions: Captions, flags: JudgesBench) -> Judged:
    pace = Pace(flags.captions_per_update, flags.seed)
    rng = np.random.default_rng(flags.seed)
    score = np.zeros(len(captions.texts))
    p, targets, asked = [], [], 0.0
    for fold in range(flags.folds):
        own = np.flatnonzero(captions.folds == fold)
        model = trained_ranker(RankingConfig(), captions, np.flatnonzero(captions.folds != fold), pace)
        asked += model.metrics()["labels"]
        # Each fold has a model of its own: their scores are made comparable by rank.
        score[own] = ranks(model.opinion([captions.texts[i] for i in own])) / len(own)
        first, second = rng.choice(own, (2, flags.pairs))
        first, second = first[first != second], second[first != second]
        p.append(model.preference([captions.texts[i] for i in first], [captions.texts[i] for i in second]))
        targets.append(0.5 + 0.5 * np.sign(captions.levels[first] - captions.levels[second]))
    p_first, target = np.concatenate(p), np.concatenate(targets)
    decided = target != 0.5
    figures = {
        "accuracy": float(((p_first > 0.5) == (target > 0.5))[decided].mean()),
        "calibration_error": expected_calibration_error(p_first, target, np.ones(len(p_first))),
        "calibration_error_decided": expected_calibration_error(
            p_first[decided], target[decided], np.ones(decided.sum())
        ),
        "comparisons_learned": asked / flags.folds,
        "pairs_tried": len(p_first),
        "pairs_decided": int(decided.sum()),
    }
    return Judged(score, figures)


_NETWORKS = {"ngrams": NGramsConfig(), "chars": CharsConfig()}


def _network(kind: str, labels: int, captions: Captions, flags: JudgesBench) -> dict[str, Any]:
    """One network, trained on a few labels of the first fold's training part: how well it judges the fold, how fast."""
    pace = Pace(flags.captions_per_update, flags.seed)
    own, rows = np.flatnonzero(captions.folds == 0), np.flatnonzero(captions.folds != 0)
    chosen = np.sort(np.random.default_rng(flags.seed).choice(rows, min(labels, len(rows)), replace=False))
    began_s = time.process_time()
    model = trained_classifier(ClassificationConfig(network=_NETWORKS[kind]), captions, chosen, pace)
    training_s = time.process_time() - began_s
    texts = [captions.texts[i] for i in own]
    began_s = time.process_time()
    called = model.opinion(texts) > 0.5
    judged_s = time.process_time() - began_s
    actual = captions.levels[own] > 0
    steps = model.metrics()["gradient_steps"]
    return {
        "network": kind,
        "labels": len(chosen),
        "accuracy": float((called == actual).mean()),
        "balanced_accuracy": balanced_accuracy(called, actual),
        "ms_per_gradient_step": training_s / steps * 1e3,
        "ms_per_1000_captions": judged_s / len(texts) * 1e6,
    }


def table(summary: Mapping[str, Any]) -> str:
    """The figures for people."""
    lines = [
        f"{summary['captions']:,} captions of {summary['templates']:,} templates "
        f"({summary['uncovered_by_the_lexicon']} more have no verdict), {summary['graded']} graded by hand",
        f"{'':<16}{'accuracy':>9}{'calibration error':>19}  {'rank correlation with grades':<32}"
        "helpful = grade above 0",
    ]
    for name, found in summary["judges"].items():
        accuracy = f"{found['accuracy']:.3f}" if "accuracy" in found else "-"
        error = f"{found['calibration_error']:.3f}" if "calibration_error" in found else "-"
        agreement = _shown(found["agreement"]) if "agreement" in found else "-"
        lines.append(f"{name:<16}{accuracy:>9}{error:>19}  {_shown(found['rank_correlation']):<32}{agreement}")
    lines.append(
        f"{'network':<12}{'labels':>7}{'accuracy':>10}{'balanced':>10}{'ms a step':>11}{'ms / 1000 captions':>20}"
    )
    for row in summary["networks"]:
        lines.append(
            f"{row['network']:<12}{row['labels']:>7}{row['accuracy']:>10.3f}{row['balanced_accuracy']:>10.3f}"
            f"{row['ms_per_gradient_step']:>11.1f}{row['ms_per_1000_captions']:>20.1f}"
        )
    return "\n".join(lines)


def _shown(found: Mapping[str, float]) -> str:
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"
