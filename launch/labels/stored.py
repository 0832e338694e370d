"""Labels as the ``yendor labels`` actions read them: from a store's file, or from a run."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from launch.errors import UserError

if TYPE_CHECKING:
    from rewards.labels.store import Label

_COMPARED = {1.0: ">", 0.0: "<", 0.5: "="}


@dataclass(frozen=True, slots=True)
class AnnotatorName:
    """Who labelled, with which question: labels of one annotator are comparable among themselves."""

    model: str
    revision: str
    prompt_version: str

    @classmethod
    def of(cls, label: Label) -> AnnotatorName:
        """Whose label it is."""
        return cls(label.model, label.model_revision, label.prompt_version)

    def __str__(self) -> str:
        return f"{self.model}@{self.prompt_version}"


def store_path(path: Path) -> Path:
    """The label store of a run folder (its own, or the one that its configuration names), or the file itself.

    Raises:
        UserError: there is no store.
    """
    if path.is_file():
        return path
    if path.is_dir():
        from launch.runs.folder import read_config

        named = read_config(path).get("labels", {}).get("path")
        store = Path(named) if named else path / "labels.sqlite"
        if store.exists():
            return store
        raise UserError(f"run {path} has no labels: {store} does not exist (does it use a reward that needs them?)")
    raise UserError(f"{path} is neither a run folder nor a label store")


def read_labels(path: Path) -> list[Label]:
    """Every label of a store or a run, in the order in which they were added.

    Raises:
        UserError: there is no store, or it cannot be read.
    """
    from rewards.labels.store import LabelStore, LabelStoreError

    try:
        with LabelStore(store_path(path), read_only=True) as store:
            found, cursor = [], 0
            while True:
                page, cursor = store.since(cursor)
                if not page:
                    return found
                found += page
    except LabelStoreError as error:
        raise UserError(str(error)) from None


def caption_counts(path: Path) -> Counter[str]:
    """How often each caption came in a run, as its last checkpoint tells; of a store alone, nothing is known."""
    captions = path / "captions.json"
    if captions.is_file():
        return Counter({row["text"]: row["count"] for row in json.loads(captions.read_text())})
    return Counter()


def shown(label: Label) -> str:
    """The caption on one line; of a pair both, and which is the better: ``A  >  B``."""
    if not label.second_id:
        return _one_line(label.text)
    sign = "?" if label.value is None else _COMPARED.get(label.value, f"{label.value:g}")
    return f"{_one_line(label.text)}  {sign}  {_one_line(label.second_text)}"


def _one_line(text: str) -> str:
    return text.replace("\n", " / ")


def soft_value(label: Label) -> float | None:
    """The expected value where the annotator gave one, else the value; None where it gave no answer."""
    return label.value if label.value is None or label.probability is None else label.probability


def confidence(label: Label) -> float | None:
    """How sure the annotator was of its answer, in [0, 1]: 1 less the distance of the expected value to it.

    None where the annotator gave no probabilities, or no answer.
    """
    if label.value is None or label.probability is None:
        return None
    return 1.0 - abs(label.value - label.probability)
