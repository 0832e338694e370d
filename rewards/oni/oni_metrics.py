"""What the models of captions report while a run goes on."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

METRICS: Mapping[str, str] = MappingProxyType(
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
