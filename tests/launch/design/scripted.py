"""A search whose designer, critic and runs follow a script: for tests only."""

from launch.config.train_config import TrainConfig
from launch.design.trials import Broken, Outcome
from rewards.auto.search.proposal import Costs, Finding, Proposal, Verdict

PAYS = """COMPONENTS = {{"walk": "dense"}}
def reward(obs, prev_obs, action, info):
    return {{"walk": {0} if obs["x"] != prev_obs["x"] else 0.0}}
"""

LOOKS = """COMPONENTS = {"look": "dense"}
def reward(obs, prev_obs, action, info):
    return {"look": 1.0 if obs["y"] != prev_obs["y"] else 0.0}
"""

ONCE, TWICE = PAYS.format("1.0"), PAYS.format("2.0")


class Designer:
    """Proposes what it was given, round by round."""

    name, costs = "scripted", Costs()

    def __init__(self, *rounds):
        self.rounds, self.briefs = rounds, []

    def propose(self, brief, num):
        self.briefs.append(brief)
        return [Proposal(source=source, by="scripted", prompt="Write.") for source in self.rounds[brief.round - 1]]


class Critic:
    """Accepts all but what the script refuses."""

    def __init__(self, *refused):
        self.refused = refused

    def critique(self, source, episodes):
        if source in self.refused:
            return None, Verdict(findings=[Finding(test="admission", outcome="fail", reason="no", code="E22")])
        return None, Verdict(findings=[])


def figures(success, env_return=0.0, episodes=10):
    return {
        "success": success, "success_low": 0.0, "success_high": 1.0, "env_return": env_return, "episodes": episodes,
    }  # fmt: skip


def outcome(trial, success=0.5, *, env_return=0.0, records=(), quarantined=()):
    return Outcome(
        key=trial.key, role=trial.role, seed=trial.seed, figures=figures(success, env_return), steps=1000,
        evaluation_steps=30, train_s=1.0, records=tuple(map(str, records)), quarantined=tuple(quarantined),
    )  # fmt: skip


class Runs:
    """Ends runs as scripted: by their names, one end after the other; otherwise well."""

    def __init__(self, **ends):
        self.ends, self.asked = {name: list(some) for name, some in ends.items()}, []

    def __call__(self, trials, parallel):
        for trial in trials:
            self.asked.append(trial.key)
            ends = self.ends.get(trial.key.replace("-", "_")) or self.ends.get(f"p{trial.key}")
            end = ends.pop(0) if ends else outcome
            yield end(trial)


def folder_of(trial):
    """Where the test has its recordings: the folder of the archive."""
    return TrainConfig.model_validate_json(trial.config_json).reward.program.archive.parent


def breaks(trial):
    return Broken(trial=trial, cause="OSError: no room", interrupted=False)


def is_stopped(trial):
    return Broken(trial=trial, cause="TrialInterruptedError: SIGTERM", interrupted=True)
