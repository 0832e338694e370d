"""Prompts for a language model that writes reward programs, within a number of characters.

The wording is in ``designing_prompt.toml``. What never changes comes first, so that a server with prefix caching
computes it once for all rounds and candidates.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import Template

from envs.features import FIELDS, Field, describe_schema
from rewards.auto.config import CompositionConfig
from rewards.auto.program import MAX_COMPONENTS, SHORT_SHA
from rewards.auto.search.proposal import Brief, Tried

WORDING = Path(__file__).with_name("designing_prompt.toml")

_KEYS = (
    "workflow", "contract", "language", "schema", "task", "reflection", "tried", "program", "failure", "analysis",
    "request", "retry",
)  # fmt: skip

_ANALYSIS_SHARE = 0.25
"""Most that the analysis of play may take of a prompt: memory would have to make room for more."""
_ANALYSIS_OF_ONE = 2000
"""Most characters of the analysis of one program's training."""

_VALUES: Mapping[str, str] = {
    "signs": "- Of each component's value only the sign counts: +1, 0 or -1.",
    "clipped": "- Each component's value is clipped to -1..1.",
}
_DENSE: Mapping[str, str] = {
    "fading": (
        "- A dense component pays {dense_weight:g} times that at first, and ever less: what all dense components pay "
        "in an episode stays within -{dense_budget:g}..{dense_budget:g}, and fades towards that."
    ),
    "budget": (
        "- A dense component pays {dense_weight:g} times that. What all dense components pay in an episode stays "
        "within -{dense_budget:g}..{dense_budget:g}: once it is used up, more of it pays nothing."
    ),
    "potential": (
        "- Dense components, times {dense_weight:g}, sum up to a potential: a step pays by how much it rose. So let "
        "them say how good the situation is, not how good the step was."
    ),
}


class PromptTooLongError(ValueError):
    """What must be said does not fit into the characters that are allowed."""


@dataclass(frozen=True)
class Prompt:
    """A prompt, and the programs that it shows."""

    text: str
    shown: tuple[str, ...]
    """SHAs of the programs whose source it holds, best first."""


@dataclass(frozen=True)
class _Memory:
    """A part of the prompt that may be left out."""

    text: str
    sha: str
    is_program: bool
    """With its source; otherwise one line."""
    at: int
    """Its place in the order in which programs were proposed."""


def describe_composition(config: CompositionConfig) -> str:
    """How components become a reward, in sentences for a prompt."""
    return "\n".join(
        [
            _VALUES[config.values],
            f"- A sparse component pays {config.sparse_weight:g} times that, whenever it is not 0.",
            _DENSE[config.dense].format(**config.model_dump()),
        ]
    )


class DesigningPrompt:
    """Writes prompts.

    Args:
        composition: how components will be composed.
        max_chars: most that a prompt may have; see ``of``.
        num_shown: most programs that are shown with their source.
        wording: a TOML file with the keys of ``designing_prompt.toml``; None = that file.
        fields: what of the schema is shown.

    Raises:
        OSError: the file cannot be read.
        ValueError: it lacks a key, or is not TOML.
    """

    def __init__(
        self,
        composition: CompositionConfig,
        max_chars: int,
        num_shown: int,
        wording: Path | None = None,
        fields: Iterable[Field] = FIELDS,
    ) -> None:
        self._texts = _load(wording or WORDING)
        self._max_chars, self._num_shown = max_chars, num_shown
        self._fixed = "".join(
            [
                self._fill("workflow"),
                self._fill(
                    "contract", composition=describe_composition(composition), max_components=str(MAX_COMPONENTS)
                ),
                self._fill("language"),
                self._fill("schema", schema=describe_schema(fields)),
                self._fill("reflection"),
            ]
        )

    def of(self, brief: Brief) -> Prompt:
        """The prompt of a round.

        The analysis of play has at most a quarter of it. Where it would be too long, failures go first, the oldest
        before the others; then programs with their source, the oldest first but the best one last; then the end of
        the analysis.

        Raises:
            PromptTooLongError: it is too long even without all of these.
        """
        brief = replace(brief, analysis=brief.analysis[: int(_ANALYSIS_SHARE * self._max_chars)])
        ranked = _ranked(brief.tried)
        best = [tried for _, tried in ranked if tried.source][: self._num_shown]
        memories = [self._memory(at, tried, is_program=tried in best) for at, tried in ranked]
        kept = self._fitting(brief, memories)
        shown = tuple(memory.sha for memory in kept if memory.is_program)
        room = self._max_chars - len(self._joined(brief, kept, ""))
        if room < 0:
            raise PromptTooLongError(
                f"the prompt needs {self._max_chars - room} characters without any memory, allowed are "
                f"{self._max_chars}: allow more"
            )
        heading = len(self._fill("analysis", analysis=""))
        return Prompt(self._joined(brief, kept, brief.analysis[: max(0, room - heading)]), shown)

    def retry(self, reason: str) -> str:
        """The answer to a reply that could not be used."""
        return self._fill("retry", reason=reason.rstrip("."))

    def _fitting(self, brief: Brief, memories: Sequence[_Memory]) -> list[_Memory]:
        kept = list(memories)
        best = next((memory for memory in memories if memory.is_program), None)
        drop_order = sorted(memories, key=lambda memory: (memory is best, memory.is_program, memory.at))
        for memory in drop_order:
            if len(self._joined(brief, kept, brief.analysis)) <= self._max_chars:
                break
            kept.remove(memory)
        return kept

    def _joined(self, brief: Brief, memories: Sequence[_Memory], analysis: str) -> str:
        programs = [memory.text for memory in memories if memory.is_program]
        failures = [memory.text for memory in memories if not memory.is_program]
        return "".join(
            [
                self._fixed,
                self._fill("task", goal=brief.goal, task=brief.task, actions=", ".join(brief.action_names)),
                *([self._fill("tried"), *programs, *failures] if memories else []),
                self._fill("analysis", analysis=analysis) if analysis else "",
                self._fill("request", round=str(brief.round)),
            ]
        ).strip()

    def _memory(self, at: int, tried: Tried, *, is_program: bool) -> _Memory:
        fitness = "not trained" if tried.fitness is None else f"solved the task in {tried.fitness:.1%} of the episodes"
        findings = [f"{f.test} ({f.outcome}): {f.reason}" for f in tried.verdict.findings if f.outcome != "pass"]
        text = self._fill(
            "program" if is_program else "failure",
            sha=tried.sha[:SHORT_SHA],
            round=str(tried.round),
            by=tried.by,
            fitness=fitness,
            findings=("\n" if is_program else "; ").join(findings) or "passed every test",
            source=tried.source.rstrip(),
            analysis=tried.analysis[:_ANALYSIS_OF_ONE] or "not analysed",
        )
        return _Memory(text, tried.sha, is_program, at)

    def _fill(self, key: str, **values: str) -> str:
        return self._texts[key].safe_substitute(values)


def _ranked(tried: Sequence[Tried]) -> list[tuple[int, Tried]]:
    """Programs with their places: trained before untrained, accepted before refused, fit before unfit, new before old.

    Of programs with the same source the newest stands for all.
    """
    newest = {program.sha: (at, program) for at, program in enumerate(tried)}

    def worth(ranked: tuple[int, Tried]) -> tuple[float, bool, int]:
        at, program = ranked
        return (-1.0 if program.fitness is None else program.fitness, program.verdict.accepted, at)

    return sorted(newest.values(), key=worth, reverse=True)


def _load(path: Path) -> dict[str, Template]:
    try:
        texts = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not TOML: {error}") from None
    missing = [key for key in _KEYS if not isinstance(texts.get(key), str)]
    if missing:
        raise ValueError(f"{path} has no text '{missing[0]}'; it needs {', '.join(_KEYS)}")
    # Each is a paragraph of its own; a line of a list is not.
    return {key: Template(texts[key].rstrip("\n") + ("\n" if key == "failure" else "\n\n")) for key in _KEYS}
