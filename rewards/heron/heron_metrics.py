"""What HERON reports while a run goes on."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

METRICS: Mapping[str, str] = MappingProxyType(
    {
        "heron/version": "Versions of HERON's reward that were published since the run began.",
        "heron/segments": "Segments that HERON's model compares now; of a full store, half are the newest, the others "
        "older ones of every kind.",
        "heron/loss": "Mean loss of HERON's model over the gradient steps of the last update: Bradley-Terry, and what "
        "pins its constant.",
        "heron/accuracy": "Share of random pairs of held-out segments, among those that are kept, ties left out, of "
        "which HERON's model agrees with the tree.",
        "heron/accuracy/*": "The same, of the pairs that this level of the tree decides.",
        "heron/decided/*": "Share of those random pairs, ties included, that this level of the tree decides.",
        "heron/tie_share": "Share of those random pairs that no level decides.",
        "heron/cycle_share": "Share of random triples of the segments that are kept whose comparisons form a "
        "cycle (margin mode).",
        "heron/disagreement": "Mean standard deviation of the members' standardised rewards, over recent steps.",
        "heron/dead_factors": "Factors that are the same in all segments that are kept: they decide nothing.",
        "heron/rank_correlation": "Spearman's, of held-out segments' rewards with the share of comparisons that "
        "they win.",
        "heron/return_correlation": "Spearman's rank correlation, over the last 100 episodes, of the sum of HERON's "
        "reward (0 before its first version) with the environment's own return.",
        "heron/judged_accuracy": "As heron/accuracy, of held-out pairs that a language model or a human has judged.",
        "heron/pairs": "Pairs that HERON's model has learned from since the run began, repeats included.",
        "heron/judged_pairs": "Those of them that a language model or a human has judged.",
        "heron/asked_pairs": "Pairs of segments that the annotator was asked about since the run began.",
        "heron/unanswered_pairs": "Those of them whose answer has not come yet.",
        "heron/unjudged_pairs": "Those of them that the annotator would not or could not judge.",
        "heron/alike_pairs": "Pairs of segments that were the same in words: ties, of which nobody was asked.",
        "heron/first_shown_better": "Share of the decided answers by which the segment that was shown first is better; "
        "far from one half, the annotator goes by the order.",
    }
)
"""``{metric name: what it is}``; ``*`` stands for one name, that of a level of the tree."""
