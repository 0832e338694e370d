"""HERON as a kind of reward: a ranking of factors, and what is made of it (Bukharin et al. 2023, arXiv 2304.06900)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from envs.actions import union_of_names
from envs.tasks import GamesConfig
from rewards.heron.config import FactorsConfig, HeronConfig, SumConfig, TreeConfig
from rewards.kinds import Prepared, RewardKind, ScoringContext
from rewards.labels.config import LabelsConfig
from rewards.labels.prompts import PromptSpec
from rewards.llm.config import LLMConfig

if TYPE_CHECKING:
    from envs.protocols import RewardModel
    from rewards.heron.heron_teacher import HeronTeacher
    from rewards.teacher import TeachingContext


class HeronKind(RewardKind[FactorsConfig]):
    """What play is worth by a ranking of factors: a model of preferences, or a sum of the factors."""

    name = "heron"
    config = HeronConfig
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
        from envs.features import check_names
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
                pairs = pairs_in_file(config, union_of_names(games.specs()), games.task_ids)
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
