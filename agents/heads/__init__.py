"""Actor heads: features to actions, advantages to a loss. A new one is a file, its configuration and a line here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agents.config import AutoregressiveConfig, CategoricalConfig, FactorisedConfig, MaskedConfig, OneStepConfig
from agents.heads.actor_head import ActorHead
from agents.heads.autoregressive import AutoregressiveHead
from agents.heads.categorical import CategoricalHead
from agents.heads.factorised import FactorisedHead
from agents.heads.masked import MaskedHead
from agents.heads.plan_head import PlanHead
from envs.data import Config
from envs.protocols import GamesSpec

HEADS: dict[type[Config], Callable[[Any, int, GamesSpec], ActorHead]] = {CategoricalConfig: CategoricalHead}
"""Which head a configuration builds, from itself, the number of features F and the games' specification.
Heads are ``nn.Module``s."""

PLAN_HEADS: dict[type[Config], Callable[[Any, int, int], PlanHead]] = {
    MaskedConfig: MaskedHead,
    AutoregressiveConfig: AutoregressiveHead,
    FactorisedConfig: FactorisedHead,
    OneStepConfig: FactorisedHead,
}
"""Which plan head a configuration builds, from itself, the number of features F and the number of actions A.
Heads are ``nn.Module``s."""
