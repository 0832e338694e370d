"""Actor heads: features to actions, advantages to a loss. A new one is a file, its configuration and a line here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agents.config import CategoricalConfig
from agents.heads.actor_head import ActorHead
from agents.heads.categorical import CategoricalHead
from envs.data import Config
from envs.protocols import GamesSpec

HEADS: dict[type[Config], Callable[[Any, int, GamesSpec], ActorHead]] = {CategoricalConfig: CategoricalHead}
"""Which head a configuration builds, from itself, the number of features F and the games' specification.
Heads are ``nn.Module``s."""
