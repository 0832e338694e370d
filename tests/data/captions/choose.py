"""Chooses the captions that were graded: ``python tests/data/captions/choose.py`` writes ``to_grade.txt``.

Half are drawn with a probability proportional to how often they came, half by drawing a template
(``envs.captions``) with equal chances, and then one of its captions; none twice.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from envs.captions import template_of

HERE = Path(__file__).parent
SEED, NUM_OF_EACH = 20_260_101, 180


def chosen(captions: dict[str, int]) -> list[str]:
    """Captions to grade, in a shuffled order.

    Args:
        captions: ``{text: count}``.
    """
    generator = np.random.default_rng(SEED)
    texts = sorted(captions)
    counts = np.array([captions[text] for text in texts], float)
    frequent = generator.choice(len(texts), NUM_OF_EACH, replace=False, p=counts / counts.sum())
    picked = [texts[i] for i in frequent]
    of_template: dict[str, list[str]] = {}
    for text in texts:
        if text not in picked:
            of_template.setdefault(template_of(text), []).append(text)
    templates = generator.choice(sorted(of_template), NUM_OF_EACH, replace=False)
    picked += [of_template[name][generator.integers(len(of_template[name]))] for name in templates]
    return [picked[i] for i in generator.permutation(len(picked))]


def main() -> None:
    """Write the list, numbered, with `` / `` between pages."""
    rows = [json.loads(line) for line in (HERE / "captions.jsonl").read_text(encoding="utf-8").splitlines()]
    texts = chosen({row["text"]: row["count"] for row in rows})
    lines = (f"{number}\t{text.replace(chr(10), ' / ')}\n" for number, text in enumerate(texts, start=1))
    (HERE / "to_grade.txt").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
