"""How probable each of a few answers was, from the log probabilities of the tokens that a model wrote.

A tokenizer may write an answer in several ways ("helpful", "h" + "elpful", " helpful"), so the mass of an answer is
spread over its beginnings. The mass of each first token goes to the answers that it can still become. Where the token
that was written can become several, the next token decides between them, and so on along the reply; mass that stays
undecided is split equally.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_BLANKS = str.maketrans({"▁": " ", "Ġ": " ", "Ċ": "\n"})
"""How tokenizers write blanks and ends of lines."""


@dataclass(frozen=True, slots=True)
class Position:
    """One place of a reply: the token written there, and how likely it and its rivals were."""

    token: str
    logprobs: Mapping[str, float]
    """Natural log probabilities of the likeliest tokens, up to a constant."""


def choice_probabilities(choices: Sequence[str], positions: Sequence[Position]) -> dict[str, float] | None:
    """Probability of each choice, given that the answer is one of them.

    Args:
        choices: the answers that are allowed, all different.
        positions: the reply, token by token.

    Returns:
        ``{choice: probability}``, summing to 1; None where no token listed at the first position begins any choice.
    """
    probabilities = dict.fromkeys(choices, 0.0)
    if not positions or not _shares(positions[0], "", choices):
        return None
    written, undecided, mass = "", list(choices), 1.0
    for position in positions:
        shares = _shares(position, written, undecided)
        if not shares:
            break
        followed = 0.0
        for token, (share, fitting) in shares.items():
            if token == position.token and len(fitting) > 1:
                followed, undecided = mass * share, fitting
            else:
                for choice in fitting:
                    probabilities[choice] += mass * share / len(fitting)
        written += position.token
        mass = followed
        if mass == 0.0:
            return probabilities
    for choice in undecided:
        probabilities[choice] += mass / len(undecided)
    return probabilities


def _shares(position: Position, written: str, choices: Sequence[str]) -> dict[str, tuple[float, list[str]]]:
    """``{token: (share of the mass, choices it fits)}`` of the tokens that fit any; the shares sum to 1."""
    fitting = {token: _fitting(written + token, choices) for token in position.logprobs}
    # Measured against the likeliest of all: choices that are hopelessly unlikely beside it get nothing.
    highest = max(position.logprobs.values(), default=0.0)
    masses = {token: math.exp(position.logprobs[token] - highest) for token, fits in fitting.items() if fits}
    total = sum(masses.values())
    return {token: (mass / total, fitting[token]) for token, mass in masses.items() if mass > 0.0}


def _fitting(text: str, choices: Sequence[str]) -> list[str]:
    """The choices that ``text`` begins, or completes: "help" begins "helpful", "helpful." completes it."""
    text = text.translate(_BLANKS).lstrip()
    ended = [c for c in choices if text.startswith(c) and text != c and not text[len(c)].isalnum()]
    longest = max(ended, key=len, default=None)
    return [c for c in choices if c.startswith(text) or c == longest]
