"""What a critic says of a program: findings with reasons, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Outcome = Literal["pass", "fail", "undetermined"]
"""Undetermined: there is not enough to judge by, which is neither a pass nor a failure."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One test, or one opinion, and how it came out."""

    test: str
    """``admission``, ``dry_run``, ``finite``, ``deterministic``, ``constant``, ``cycle``, ``auc``, ``opinion``, ..."""
    outcome: Outcome
    reason: str
    """One sentence: with the figures that it rests on."""
    figures: Mapping[str, float] = field(default_factory=dict)
    code: str = ""
    """``E22`` where a rejection stands behind it."""
    line: int | None = None

    def as_json(self) -> dict[str, Any]:
        """For files; ``finding_of`` reads it back."""
        return {
            "test": self.test,
            "outcome": self.outcome,
            "reason": self.reason,
            "figures": dict(self.figures),
            "code": self.code,
            "line": self.line,
        }


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Everything that was found about one program."""

    findings: Sequence[Finding]

    @property
    def accepted(self) -> bool:
        """Nothing failed; what is undetermined does not count against a program."""
        return all(finding.outcome != "fail" for finding in self.findings)

    @property
    def reasons(self) -> list[str]:
        """Why it was rejected; empty where it was not."""
        return [f"{f.test}: {f.reason}" for f in self.findings if f.outcome == "fail"]

    def as_json(self) -> dict[str, Any]:
        """For files; ``verdict_of`` reads it back."""
        return {"accepted": self.accepted, "findings": [finding.as_json() for finding in self.findings]}


def verdict_of(stored: Mapping[str, Any]) -> Verdict:
    """The verdict that ``Verdict.as_json`` wrote.

    Raises:
        KeyError, TypeError: it is something else.
    """
    return Verdict(findings=[Finding(**finding) for finding in stored["findings"]])
