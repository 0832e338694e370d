"""What the two learned caption models share: captions by row, held-out splits, a schedule, and the base class.

Each member of an ensemble leaves out the templates of a fold of its own. Every caption is learnt by all members but
one at most, so that no kind of message is lost to the reward, and still every fold says how well a member does on
templates that it never saw. Folds and bootstrap weights come from hashes, whatever the order of the labels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import torch

from envs.captions import template_of
from envs.protocols import State
from rewards.ensemble import Ensemble
from rewards.labels.questions import Answer, Question
from rewards.oni.caption_model import Values
from rewards.oni.config import LearnedConfig
from rewards.oni.networks import build_network

NO_FOLD = -1
"""Fold of captions that every member learns from."""

_POISSON_CDF = np.cumsum(np.exp(-1) / np.cumprod([1.0, *range(1, 12)]))


def _uniform(key: str, number: int) -> np.ndarray:
    """float64 [number] in [0, 1), the same for the same key."""
    words = [blake2b(f"{i} {key}".encode(), digest_size=8).digest() for i in range(number)]
    return np.array([int.from_bytes(word, "big") >> 11 for word in words], np.float64) / 2.0**53


def fold_of(caption: str, share: float, members: int) -> int:
    """The member that leaves this caption out, or ``NO_FOLD``; the same for all captions of a template.

    Args:
        caption: a canonical text.
        share: share of templates in each fold.
        members: number of folds.
    """
    fold = int(_uniform(template_of(caption), 1)[0] / share) if share > 0 else members
    return fold if fold < members else NO_FOLD


def bootstrap_weights(key: str, members: int) -> np.ndarray:
    """How often each member draws an example into its sample: Poisson(1), which is the bootstrap of a stream.

    Oza and Russell 2001, "Online bagging and boosting".

    Args:
        key: names the example.
        members: K.

    Returns:
        float32 [K].
    """
    return np.searchsorted(_POISSON_CDF, _uniform(key, members), side="right").astype(np.float32)


class Corpus:
    """Texts of captions, and what is computed from each of them once.

    Args:
        encode: text -> int64 [M], what a network reads of it.
        fold: text -> the member that leaves it out.
    """

    def __init__(self, encode: Callable[[str], np.ndarray], fold: Callable[[str], int]) -> None:
        self.encode, self._fold = encode, fold
        self._clear()

    def _clear(self) -> None:
        self.ids: list[int] = []
        self.texts: list[str] = []
        self.encoded: list[np.ndarray] = []
        self.folds: list[int] = []
        self.templates: list[int] = []
        """Number of each caption's template."""
        self._rows: dict[int, int] = {}
        self._template_numbers: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, ident: int, text: str) -> int:
        """The row of a caption; a new one where it was not known."""
        row = self._rows.get(ident)
        if row is None:
            row = self._rows[ident] = len(self.ids)
            self.ids.append(ident)
            self.texts.append(text)
            self.encoded.append(self.encode(text))
            self.folds.append(self._fold(text))
            self.templates.append(self._template_numbers.setdefault(template_of(text), len(self._template_numbers)))
        return row

    def row(self, ident: int) -> int | None:
        """The row of a caption, None where it is not known."""
        return self._rows.get(ident)

    def encodings(self, rows: Iterable[int]) -> list[np.ndarray]:
        """What a network reads of the captions of these rows."""
        return [self.encoded[row] for row in rows]

    def state_dict(self) -> State:
        """Ids and texts; the rest is computed from them."""
        return {"ids": np.array(self.ids, np.int64), "texts": list(self.texts)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
        self._clear()
        for ident, text in zip(state["ids"], state["texts"], strict=True):
            self.add(int(ident), text)


class CurrentValues:
    """Value of each row of a corpus, and which of them were not published yet."""

    def __init__(self) -> None:
        self._value = np.zeros(0, np.float32)
        self._known = np.zeros(0, bool)
        self._news = np.zeros(0, bool)

    def put(self, rows: np.ndarray, values: np.ndarray) -> None:
        """Values [N] of rows [N]; what does not change is no news."""
        self._grow(int(rows.max(initial=-1)) + 1)
        new = values.astype(np.float32)
        changed = ~self._known[rows] | (self._value[rows] != new)
        self._value[rows] = new
        self._known[rows] = True
        self._news[rows] |= changed

    def _grow(self, size: int) -> None:
        extra = max(size - len(self._value), 0)
        self._value = np.pad(self._value, (0, extra))
        self._known = np.pad(self._known, (0, extra))
        self._news = np.pad(self._news, (0, extra))

    def get(self, row: int) -> float | None:
        """The value of a row, None where it has none."""
        return float(self._value[row]) if row < len(self._known) and self._known[row] else None

    def take(self, ids: list[int]) -> Values:
        """(id, value) of what is new since the last call; ``ids`` names the rows."""
        rows = np.flatnonzero(self._news)
        self._news[rows] = False
        return [(ids[row], value) for row, value in zip(rows.tolist(), self._value[rows].tolist(), strict=True)]

    @property
    def known(self) -> np.ndarray:
        """float32: the values of all rows that have one."""
        return self._value[self._known]

    def state_dict(self) -> State:
        """Values, which are known, which are news."""
        return {"value": self._value.copy(), "known": self._known.copy(), "news": self._news.copy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
        self._value = np.array(state["value"], np.float32)
        self._known = np.array(state["known"], bool)
        self._news = np.array(state["news"], bool)


class StepBudget:
    """Gradient steps that labels pay for, so that the cost of training ends when labels stop coming.

    Args:
        steps_per_label: what one new label buys.
        steps_per_update: most steps an update.
        max_steps_owed: most steps that wait to be taken; where labels come faster, more are not bought.
    """

    def __init__(self, steps_per_label: float, steps_per_update: int, max_steps_owed: int) -> None:
        self._steps_per_label, self._most, self._max_owed = steps_per_label, steps_per_update, max_steps_owed
        self._credit = 0.0

    def earn(self, labels: int) -> None:
        """New labels arrived."""
        self._credit = min(self._credit + labels * self._steps_per_label, self._max_owed)

    def spend(self) -> int:
        """Steps to take in this update."""
        # What ten labels buy at 0.1 each is one step, though their sum is a little less in floating point.
        steps = min(int(self._credit + 1e-9), self._most)
        self._credit -= steps
        return steps

    def state_dict(self) -> State:
        """What is left."""
        return {"credit": self._credit}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
        self._credit = float(state["credit"])


class RefreshClock:
    """Every so many updates, and less often where there is so much to value that it would cost more than allowed.

    Args:
        updates: fewest updates between two refreshes.
        captions_per_update: captions valued anew in an update, on average at most.
    """

    def __init__(self, updates: int, captions_per_update: int) -> None:
        self._updates, self._captions_per_update = updates, captions_per_update
        self._since = 0

    def tick(self) -> None:
        """An update has passed."""
        self._since += 1

    def is_due(self, captions: int) -> bool:
        """A refresh of so many captions may happen now."""
        return self._since >= max(self._updates, captions / self._captions_per_update)

    def restart(self) -> None:
        """A refresh has happened."""
        self._since = 0

    def state_dict(self) -> State:
        """Updates since the last refresh."""
        return {"since": self._since}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
        self._since = int(state["since"])


class LearnedModel(ABC):
    """A caption model (:class:`~rewards.oni.caption_model.CaptionModel`) that generalises from answers.

    In each ``learn``: answers become examples, sorted by ids; the gradient steps that they bought are taken; and
    captions are valued, new ones at once and all of them now and then, when the model has changed. Everything
    follows from the seed, the answers and the calls, in the same way on every machine of one kind.

    Args:
        config: networks and schedule.
        seed: of the initial weights, the bootstrap and the batches.
    """

    def __init__(self, config: LearnedConfig, seed: int) -> None:
        self._config, self._seed = config, seed
        generator = torch.Generator().manual_seed(int(np.random.SeedSequence((seed, 11)).generate_state(1)[0]))
        network = build_network(config.network, config.members, generator)
        self._ensemble = Ensemble(network, config.learning_rate, config.weight_decay)
        self._rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, 12))))
        self._corpus = Corpus(network.encode, lambda text: fold_of(text, config.held_out_share, config.members))
        self._met: list[int] = []
        """Rows of captions observed in play, in the order in which they were."""
        self._met_ids: set[int] = set()
        self._num_valued = 0
        """How many of them have a value."""
        self._scores = np.zeros((config.members, 0))
        """float64 [K, rows]: each member's number, as of the last time; nan = never."""
        self._values = CurrentValues()
        self._budget = StepBudget(config.steps_per_label, config.steps_per_update, config.max_steps_owed)
        self._clock = RefreshClock(config.refresh_updates, config.refresh_captions_per_update)
        self._steps = 0
        self._steps_at_refresh = -1
        self._figures: dict[str, float] = {}

    @abstractmethod
    def count(self, counts: Mapping[int, int]) -> None:
        """Take in how often captions came since the last call."""

    @abstractmethod
    def questions(self) -> list[Question]:
        """What the annotator should be asked now."""

    @abstractmethod
    def unanswered(self) -> list[Question]:
        """What was asked and not answered."""

    @abstractmethod
    def _add(self, answer: Answer) -> bool:
        """Take in one answer; True where it is a new example."""

    @abstractmethod
    def _can_learn(self) -> bool:
        """There are enough examples; once true, always true."""

    @abstractmethod
    def _step(self) -> None:
        """One gradient step."""

    @abstractmethod
    def _held_out_rows(self) -> Iterable[int]:
        """Rows that ``_fit`` needs scores of, beside those of observed captions."""

    @abstractmethod
    def _fit(self) -> dict[str, float]:
        """Fit what turns scores into values, now that all scores are of one model; returns the figures."""

    @abstractmethod
    def _opinion(self, scores: np.ndarray) -> np.ndarray:
        """What the ensemble makes of its members' scores [K, N], before any threshold: [N]."""

    @abstractmethod
    def _worth(self, scores: np.ndarray) -> np.ndarray:
        """Values [N] of scores [K, N]."""

    def meet(self, captions: Mapping[int, str]) -> None:
        """Remember them; they are valued in the next ``learn``."""
        for ident, text in captions.items():
            if ident and ident not in self._met_ids:
                self._met_ids.add(ident)
                self._met.append(self._corpus.add(ident, text))

    def learn(self, answers: Iterable[Answer]) -> None:
        """Take in answers, take the gradient steps that they bought, and value captions."""
        self._budget.earn(sum([self._add(answer) for answer in sorted(answers, key=_order)]))
        self._clock.tick()
        if not self._can_learn():
            return
        for _ in range(self._budget.spend()):
            self._step()
            self._steps += 1
        if not self._met or not self._is_taught():
            return
        is_first = self._steps_at_refresh < 0
        if is_first or (self._is_stale() and self._clock.is_due(len(self._met))):
            self._refresh()
        elif new := self._met[self._num_valued :]:
            self._score(new)
            self._put(new)

    def _is_taught(self) -> bool:
        """The steps that the first labels bought were taken: before, values would be those of the initial weights.

        They buy no more than may be owed: what comes in a burst beyond that is never taken.
        """
        config = self._config
        return self._steps >= max(1, min(int(config.min_labels * config.steps_per_label), config.max_steps_owed))

    def _is_stale(self) -> bool:
        """Captions would be worth something else, if they were valued anew."""
        return self._steps != self._steps_at_refresh

    def _refresh(self) -> None:
        self._score(sorted({*self._met, *self._held_out_rows()}))
        self._figures = self._fit()
        self._put(self._met)
        self._steps_at_refresh = self._steps
        self._clock.restart()

    def _score(self, rows: list[int]) -> None:
        scores = self._ensemble.predict(self._corpus.encodings(rows))
        self._grow_scores()
        self._scores[:, rows] = scores

    def _scores_of(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """float64 [K, N], nan where a row was never scored."""
        self._grow_scores()
        return self._scores[:, np.asarray(rows, np.int64)]

    def _grow_scores(self) -> None:
        missing = len(self._corpus) - self._scores.shape[1]
        self._scores = np.pad(self._scores, ((0, 0), (0, missing)), constant_values=np.nan)

    def _put(self, rows: list[int]) -> None:
        self._values.put(np.array(rows, np.int64), self._worth(self._scores_of(rows)))
        self._num_valued = len(self._met)

    def take_values(self) -> Values:
        """Values that are new or have changed since the last call."""
        return self._values.take(self._corpus.ids)

    def value(self, caption_id: int) -> float | None:
        """What a caption is worth now; None where the model cannot say yet."""
        row = self._corpus.row(caption_id)
        return None if row is None else self._values.get(row)

    def opinion(self, texts: Sequence[str]) -> np.ndarray:
        """float64 [N]: what the model thinks of canonical captions, observed or not, before any threshold.

        Of a classifier p(helpful), of a ranking the normalised score; nothing is remembered of them.
        """
        return self._opinion(self._predict(texts))

    def _predict(self, texts: Sequence[str]) -> np.ndarray:
        return self._ensemble.predict([self._corpus.encode(text) for text in texts])

    def metrics(self) -> Mapping[str, float]:
        """Figures of the last refresh, and how much was learnt."""
        return {**self._figures, "gradient_steps": float(self._steps)}

    def _batch(self, number: int) -> np.ndarray:
        """Positions of the examples of one gradient step: all where they fit, else drawn with replacement."""
        size = self._config.batch_size
        return np.arange(number) if number <= size else self._rng.integers(number, size=size)

    def _example_weights(self, rows: tuple[int, ...]) -> np.ndarray:
        """float32 [K]: how much each member learns from an example about the captions of these rows."""
        members = self._config.members
        key = " ".join(str(ident) for ident in (self._seed, *sorted(self._corpus.ids[row] for row in rows)))
        weights = bootstrap_weights(key, members) if self._config.bootstrap else np.ones(members, np.float32)
        weights[self._left_out_by(rows)] = 0
        return weights

    def _left_out_by(self, rows: tuple[int, ...]) -> list[int]:
        """Members that do not learn from an example about the captions of these rows."""
        return sorted({self._corpus.folds[row] for row in rows} - {NO_FOLD})

    def state_dict(self) -> State:
        """Captions, scores, values, networks and optimiser, schedule, random state, figures."""
        return {
            "corpus": self._corpus.state_dict(),
            "met": np.array(self._met, np.int64),
            "num_valued": self._num_valued,
            "scores": self._scores.copy(),
            "values": self._values.state_dict(),
            "ensemble": self._ensemble.state_dict(),
            "budget": self._budget.state_dict(),
            "clock": self._clock.state_dict(),
            "generator": dict(self._rng.bit_generator.state),
            "steps": self._steps,
            "steps_at_refresh": self._steps_at_refresh,
            "figures": dict(self._figures),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``.

        Raises:
            ValueError: the state is that of other networks.
        """
        self._ensemble.load_state_dict(state["ensemble"])
        self._corpus.load_state_dict(state["corpus"])
        self._met = [int(row) for row in state["met"]]
        self._met_ids = {self._corpus.ids[row] for row in self._met}
        self._num_valued = int(state["num_valued"])
        self._scores = np.array(state["scores"], np.float64)
        self._values.load_state_dict(state["values"])
        self._budget.load_state_dict(state["budget"])
        self._clock.load_state_dict(state["clock"])
        self._rng.bit_generator.state = state["generator"]
        self._steps = int(state["steps"])
        self._steps_at_refresh = int(state["steps_at_refresh"])
        self._figures = dict(state["figures"])


def _order(answer: Answer) -> tuple[Any, ...]:
    """A total order, so that it does not matter in which order answers come."""
    return answer.question.ids, answer.value is None, answer.value or 0.0, answer.soft_value or 0.0
