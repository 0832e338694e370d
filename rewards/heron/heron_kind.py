"""HERON as a kind of reward: a ranking of factors, and what is made of it (Bukharin et al. 2023, arXiv 2309.02632)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from envs.spec import GamesConfig, union_of_names
from envs.tasks import specs_of
from rewards.heron.config import FactorsConfig, HeronConfig, SumConfig, TreeConfig
from rewards.kinds import Prepared, RewardKind, ScoringContext
from rewards.labels.config import LabelsConfig
from rewards.labels.label_metrics import METRICS as LABEL_METRICS
from rewards.labels.questions import PromptSpec
from rewards.llm.config import LLMConfig

if TYPE_CHECKING:
    from envs.protocols import RewardModel
    from rewards.heron.heron_teacher import HeronTeacher
    from rewards.reporting import Section
    from rewards.teacher import TeachingContext


_METRICS: Mapping[str, str] = MappingProxyType(
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


class HeronKind(RewardKind[FactorsConfig]):
    """What play is worth by a ranking of factors: a model of preferences, or a sum of the factors."""

    name = "heron"
    config = HeronConfig
    metrics: ClassVar[Mapping[str, str]] = MappingProxyType({**LABEL_METRICS, **_METRICS})
    usual_weight = 0.3

    def columns(self, config: FactorsConfig) -> Sequence[str]:
        """Those of the factors, and those that the model reads."""
        from rewards.heron.factors import FactorTable
        from rewards.heron.inputs import read_columns

        factors = FactorTable.from_ranking(config.ranking).columns
        if not isinstance(config, TreeConfig) or config.model.encoder:
            return factors
        return tuple(dict.fromkeys((*factors, *read_columns(config.model, factors))))

    def questions(self, config: FactorsConfig, labels: LabelsConfig, llm: LLMConfig) -> Mapping[str, PromptSpec]:
        """Pairs of stretches of play, where the labeller is one of the judges."""
        if not isinstance(config, TreeConfig) or "labeller" not in config.judges.sources:
            return {}
        if not labels.client.judges_play(llm):
            raise ValueError(
                "judges.sources: the lexicon judges captions, and to compare stretches of play the labeller needs a "
                "language model (llm.base_url or llm.serve) or labels.client.kind=scripted"
            )
        return {"play": labels.play_spec()}

    def check(self, config: FactorsConfig) -> None:
        """Unknown factors and columns; what the model cannot read."""
        from envs.schema import check_names
        from rewards.heron.factors import FactorTable

        try:
            check_names(FactorTable.from_ranking(config.ranking).columns)
        except ValueError as error:
            raise ValueError(f"ranking: {error}") from None
        if isinstance(config, TreeConfig):
            _check_inputs(config)

    def prepare(self, config: FactorsConfig, games: GamesConfig, seed: int) -> Prepared[FactorsConfig]:
        """Refuse what people are said to prefer, where it cannot be learned from; a resumed run has learned it."""
        if isinstance(config, TreeConfig) and config.judges.human is not None:
            from rewards.heron.human import pairs_in_file
            from rewards.heron.preferences import check_learnable

            try:
                pairs = pairs_in_file(config, union_of_names(specs_of(games)), games.task_ids)
                if pairs is not None:
                    check_learnable(pairs, config, seed)
            except ValueError as error:
                raise ValueError(f"judges.human: {error}") from None
        return Prepared(config=config)

    def model(self, config: FactorsConfig, context: ScoringContext) -> RewardModel:
        """A model of preferences, which pays nothing before it is given a version, or a sum."""
        from rewards.heron.factors import FactorTable
        from rewards.heron.heron_reward import FactorSum, HeronReward
        from rewards.heron.inputs import step_inputs
        from rewards.heron.segmenter import Segmenter

        table = FactorTable.from_ranking(config.ranking)
        if isinstance(config, SumConfig):
            return FactorSum(table, config.weights(len(table.names)))
        assert isinstance(config, TreeConfig), "there are these two"
        inputs = step_inputs(config.model, table.columns, context.spec, context.encode)
        return HeronReward(inputs, Segmenter(inputs, table, config.segment_steps, context.num_tasks))

    def teacher(self, config: FactorsConfig, context: TeachingContext) -> HeronTeacher | None:
        """What learns from the play of all workers; None where nothing is learned."""
        if not isinstance(config, TreeConfig):
            return None
        from rewards.heron.heron_teacher import HeronTeacher

        return HeronTeacher(config, context)

    def report(self, run: Path, config: FactorsConfig, events: Sequence[Mapping[str, Any]]) -> Section | None:
        """The tree, and how each level decides."""
        from rewards.heron.preference_section import preference_section

        return preference_section(run)


def _check_inputs(config: TreeConfig) -> None:
    from rewards.heron.factors import FactorTable
    from rewards.heron.inputs import ColumnInputs, read_columns

    try:
        ColumnInputs(config.model.inputs)
        if not config.model.encoder and not read_columns(
            config.model, FactorTable.from_ranking(config.ranking).columns
        ):
            raise ValueError(
                "the factors read all of these columns, so that none is left for the model; name others, or set "
                "model.see_factors"
            )
    except ValueError as error:
        raise ValueError(f"model.inputs: {error}") from None
