"""What a run measures: every metric defined once, written as JSONL always and for TensorBoard on request."""

from __future__ import annotations

import math
import re
import time
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from envs.files import JsonLines, read_lines
from launch.errors import nearest

if TYPE_CHECKING:
    from envs.data import EpisodeResult
    from envs.protocols import State

_FILE = "metrics.jsonl"

GLOSSARY: Mapping[str, str] = MappingProxyType(
    {
        "rollout/success": "Share of the last 100 episodes that solved their task.",
        "rollout/env_return": "Mean undiscounted sum of the environment's own reward over the last 100 "
        "episodes; never a shaped reward.",
        "rollout/episode_steps": "Mean length of the last 100 episodes, in steps.",
        "rollout/episodes": "Episodes finished since the run began.",
        "rollout/truncated_share": "Share of the last 100 episodes that a time limit cut.",
        "rollout/score": "Mean in-game score of the last 100 episodes (NetHack).",
        "rollout/max_depth": "Mean deepest dungeon level reached in the last 100 episodes (NetHack).",
        "rollout/max_xp_level": "Mean highest experience level reached in the last 100 episodes (NetHack).",
        "rollout/dropped": "Rollouts thrown away since the last start, because their worker died or they were too old.",
        "rewards/*/mean": "Mean of this reward part over the valid steps of the last update, unweighted.",
        "rewards/*/valid": "Share of the steps of the last update for which this reward part had a value.",
        "rewards/program/*/mean": "What this component of the reward program pays, composed; mean over valid steps.",
        "rewards/program/*/valid": "Share of the steps of the last update for which the reward program had an answer.",
        "rewards/program/*/episode_sum": "Mean sum of what this component pays over the last 100 episodes.",
        "rewards/program/*/raw/mean": "What the reward program itself gave for this component; mean over valid steps.",
        "rewards/program/*/raw/valid": "As rewards/program/*/valid.",
        "rewards/program/*/raw/episode_sum": "Mean sum of the component's own values over the last 100 episodes.",
        "rewards/*/episode_sum": "Mean sum of this reward part over the last 100 episodes, unweighted.",
        "labels/queued": "Questions (captions, or pairs of captions) waiting to be put to the annotator.",
        "labels/in_flight": "Questions put to the annotator and not answered yet.",
        "labels/claimed_elsewhere": "Questions whose answer another run that shares the label store is getting now.",
        "labels/asked": "Questions that the annotator answered for this run, resumes included, and those in flight; "
        "what the budget counts.",
        "labels/labelled": "Questions that the annotator answered with a value since the last start.",
        "labels/failed": "Questions whose answer could not be understood, or never came, since the last start.",
        "labels/refused": "Questions that the annotator would not answer, since the last start; not asked again.",
        "labels/uncovered": "Questions that the annotator said it has no answer for, since the last start.",
        "labels/retries": "Requests that were sent again since the last start.",
        "labels/over_budget": "Distinct questions not asked because the run's labelling budget was spent.",
        "labels/dropped": "Distinct questions that were dropped from the full queue since the last start, oldest "
        "first; they are asked again later.",
        "labels/from_store": "Questions answered from the label store without asking, since the last start.",
        "labels/breaker_open": "1 while the annotator is left alone because it failed again and again, else 0.",
        "labels/breaker_opens": "Times since the last start that the annotator began to be left alone.",
        "labels/llm_requests": "Requests that the language model answered, since the last start.",
        "labels/llm_prompt_tokens": "Tokens of prompts that the language model read, since the last start.",
        "labels/llm_cached_tokens": "Those of them that the server says it had in its prefix cache (vLLM tells them "
        "for the last prompt of each list only).",
        "labels/llm_completion_tokens": "Tokens that the language model wrote, since the last start.",
        "labels/known": "Distinct captions, or pairs of captions, whose answer has a value.",
        "labels/coverage": "Share of the caption occurrences of the last update that the reward had a value for.",
        "labels/labels_per_s": "Labels per second since the last line.",
        "labels/latency_s": "Seconds from sending captions to the annotator to having its answer, smoothed.",
        "reward_model/labels": "Answers with a value that the model of captions has learned from or looks up.",
        "reward_model/gradient_steps": "Gradient steps that the model of captions took since the run began.",
        "reward_model/positive_share": "Share of the labels that are above one half (classification).",
        "reward_model/tie_share": "Share of the compared pairs of which the annotator said that neither is better "
        "(ranking).",
        "reward_model/first_shown_better": "Share of the decided pairs whose better caption was shown first; far from "
        "one half, the annotator goes by the order (ranking).",
        "reward_model/paid_share": "Share of what was heard that the model pays: occurrences above the quantile "
        "and the mean (ranking).",
        "reward_model/temperature": "What the classifier's logits are divided by, so that its probabilities are those "
        "of the held-out labels.",
        "reward_model/disagreement": "Mean standard deviation of the members of the ensemble, over the captions heard.",
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
        "heron/version": "Versions of HERON's reward that were given out since the run began.",
        "heron/segments": "Segments that HERON's model compares now; of a full store, half are the newest, the others "
        "older ones of every kind.",
        "heron/loss": "Mean loss of HERON's model over the gradient steps of the last update: Bradley-Terry, and what "
        "pins its constant.",
        "heron/accuracy": "Share of random pairs of held-out segments, among those that are kept, ties left out, of "
        "which HERON's model says what the tree says.",
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
        "heron/judged_accuracy": "As heron/accuracy, of held-out pairs that others than the tree have judged.",
        "heron/pairs": "Pairs that HERON's model has learned from since the run began, repeats included.",
        "heron/judged_pairs": "Those of them that a language model or a human has judged.",
        "heron/asked_pairs": "Pairs of segments that the annotator was asked about since the run began.",
        "heron/unanswered_pairs": "Those of them whose answer has not come yet.",
        "heron/unjudged_pairs": "Those of them that the annotator would not or could not judge.",
        "heron/alike_pairs": "Pairs of segments that were the same in words: ties, of which nobody was asked.",
        "heron/first_shown_better": "Share of the decided answers by which the segment that was shown first is better; "
        "far from one half, the annotator goes by the order.",
        "policy/loss": "Mean loss of the last update: surrogate, entropy bonus and value loss, weighted.",
        "policy/policy_loss": "Mean of the actor head's surrogate (PPO: clipped), without the entropy bonus.",
        "policy/value_loss": "Mean squared value error of the last update, over reward streams.",
        "policy/entropy": "Mean entropy of the action distribution, in nats.",
        "policy/approx_kl": "Approximate KL divergence from the policy at the start of the update to the updated "
        "one, in nats: mean of (r - 1) - log r.",
        "policy/clip_fraction": "Share of samples whose probability ratio was clipped.",
        "policy/explained_variance": "1 - Var(return - value) / Var(return), before the update; 1 is "
        "perfect, 0 no better than a constant.",
        "policy/grad_norm": "Mean global gradient norm before clipping.",
        "policy/lag_mean": "Mean age of the samples of the last update, in policy versions.",
        "policy/lag_max": "Greatest age of a sample of the last update, in policy versions.",
        "time/steps_per_s": "Environment steps per second since the last line.",
        "time/wait_s": "Seconds that the driver waited for rollouts, per update.",
        "time/labels_s": "Seconds that the driver spent handing captions to the labeller and taking its labels, "
        "per update.",
        "time/reward_model_s": "Seconds that the driver spent training reward models (of captions, of preferences) "
        "and valuing captions, per update.",
        "time/update_s": "Seconds that the driver waited for a batch to be learned from, per update.",
        "time/games_s": "Seconds that a worker spent stepping games, per rollout.",
        "time/inference_s": "Seconds that a worker spent choosing actions and valuing observations, per rollout.",
        "time/captions_s": "Seconds that a worker spent hashing and counting captions, per rollout.",
        "time/record_s": "Seconds that a worker spent writing its rollout down, per rollout.",
        "time/score_s": "Seconds that a learner spent scoring rollouts with the reward models, per update.",
        "time/learn_s": "Seconds that a learner spent on advantages and gradient steps, per update.",
        "time/exchange_s": "Seconds that a peer spent averaging gradients with the others, waiting included, per "
        "update.",
        "time/segments_s": "Seconds that a learner spent cutting play into segments for HERON, per update.",
        "time/account_s": "Seconds that a learner spent summing up what was said and paid, per update.",
        "time/collect_s": "Seconds spent collecting rollouts, per update (in runs of the reference learner).",
        "time/elapsed_s": "Seconds since the run began, without the pauses between resumes.",
        "workers/deaths": "Rollout workers that died and were replaced since the last start.",
    }
)
"""``{metric name: what it is}``; ``*`` stands for one name, such as that of a reward part."""


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(re.escape(name).replace(r"\*", "[^/]+"))


def glossary_markdown(glossary: Mapping[str, str] = GLOSSARY) -> str:
    """The glossary as Markdown: one table for each group of metrics, for the README."""
    groups: dict[str, list[str]] = {}
    for name, text in glossary.items():
        shown = name.replace("*", "<name>")
        groups.setdefault(name.partition("/")[0], []).append(f"| `{shown}` | {text} |")
    head = "| metric | meaning |\n|---|---|\n"
    return "\n\n".join(f"**{group}**\n\n{head}" + "\n".join(rows) for group, rows in groups.items()) + "\n"


class MetricsWriter:
    """Appends to ``metrics.jsonl`` and, if asked, to TensorBoard's files.

    Args:
        folder: the run folder.
        tensorboard: also write TensorBoard scalars (imported here, without torch).
        resume_step: lines of later steps are dropped: the run goes on from an earlier checkpoint.
        glossary: the metrics that may be written.

    Attributes:
        num_dropped: how many lines of an abandoned future were dropped.
    """

    def __init__(
        self,
        folder: Path,
        *,
        tensorboard: bool = True,
        resume_step: int | None = None,
        glossary: Mapping[str, str] = GLOSSARY,
    ) -> None:
        self._patterns = {name: _pattern(name) for name in glossary}
        self._allowed: set[str] = set()
        self._lines = JsonLines(folder / _FILE)
        self.num_dropped = 0
        if resume_step is not None:
            self.num_dropped = self._lines.keep(lambda line: line["step"] <= resume_step)
        self._board = _TensorBoard(folder / "tensorboard", resume_step) if tensorboard else None

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write one line and flush it. A value that is not finite is written as null.

        Raises:
            ValueError: a name has no definition in the glossary; the text has the nearest ones.
        """
        for name in metrics:
            self._check(name)
        values = {name: float(value) for name, value in metrics.items()}
        self._lines.append({"step": step, "time": round(time.time(), 3), **values})
        if self._board is not None:
            self._board.write(step, {k: v for k, v in values.items() if math.isfinite(v)})

    def _check(self, name: str) -> None:
        if name in self._allowed:
            return
        if not any(pattern.fullmatch(name) for pattern in self._patterns.values()):
            near = ", ".join(nearest(name, self._patterns)) or "nothing like it"
            raise ValueError(f"metric '{name}' is not defined in the glossary (it has {near})")
        self._allowed.add(name)

    def close(self) -> None:
        """Close the files."""
        self._lines.close()
        if self._board is not None:
            self._board.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _TensorBoard:
    """Scalars in TensorBoard's file format, by TensorBoard's own writer (torch's would import torch)."""

    def __init__(self, folder: Path, resume_step: int | None) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        # Generated modules, whose classes a type checker cannot see.
        self._event: Any = event_pb2
        self._summary: Any = summary_pb2
        self._writer = EventFileWriter(str(folder))
        if resume_step is not None:
            # Tells TensorBoard to forget what an abandoned future wrote.
            start = self._event.SessionLog(status=self._event.SessionLog.START)
            self._writer.add_event(self._event.Event(step=resume_step + 1, session_log=start))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        rows = [self._summary.Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        summary = self._summary.Summary(value=rows)
        self._writer.add_event(self._event.Event(wall_time=time.time(), step=step, summary=summary))
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's ``metrics.jsonl``, oldest first; null where a value was not finite."""
    return list(read_lines(folder / _FILE))


_GAME_FIELDS = ("score", "max_depth", "max_xp_level")


class WindowedEpisodes:
    """Means over the most recent episodes: the ``rollout/`` metrics.

    Args:
        window: how many episodes are remembered.
    """

    def __init__(self, window: int = 100) -> None:
        self._rows: deque[dict[str, float]] = deque(maxlen=window)
        self._num_episodes = 0

    def add(self, results: Iterable[EpisodeResult]) -> None:
        """Remember finished episodes, in the order in which they ended."""
        from envs.data import EndStatus

        for result in results:
            row = {
                "success": float(result.success),
                "env_return": result.env_return,
                "episode_steps": float(result.num_steps),
                "truncated_share": float(result.end_status == EndStatus.ABORTED),
            }
            if not result.task.startswith("MiniHack"):  # whose levels have neither depth nor much of a score
                row |= {key: float(result.game[key]) for key in _GAME_FIELDS if key in result.game}
            self._rows.append(row)
            self._num_episodes += 1

    @property
    def returns(self) -> list[float]:
        """Of the environment's own reward, over the remembered episodes, the oldest first."""
        return [row["env_return"] for row in self._rows]

    def metrics(self) -> dict[str, float]:
        """Means under their names; only ``rollout/episodes`` while no episode has ended."""
        found = {"rollout/episodes": float(self._num_episodes)}
        for key in dict.fromkeys(key for row in self._rows for key in row):
            values = [row[key] for row in self._rows if key in row]
            found[f"rollout/{key}"] = math.fsum(values) / len(values)
        return found

    def state_dict(self) -> State:
        """The remembered episodes, for the checkpoint."""
        return {"rows": [dict(row) for row in self._rows], "num_episodes": self._num_episodes}

    def load_state_dict(self, state: State) -> None:
        """Continue from ``state_dict``."""
        self._rows = deque((dict(row) for row in state["rows"]), maxlen=self._rows.maxlen)
        self._num_episodes = int(state["num_episodes"])
