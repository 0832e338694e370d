"""The symmetric placement: Ray actors that play, score and learn alike, and hold one network between them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from agents.policy import weights_of
from agents.rollout import WorkerRollout
from envs.protocols import Alone, Group, State
from launch.config.train_config import TrainConfig
from launch.errors import RunError
from launch.processes.groups import GlooMeeting, GroupBrokenError, Invitation, Meeting, shared_memory_meeting
from launch.processes.learning import UpdateReport
from launch.processes.lifecycle import DeathWatch, MemoryGrowth
from launch.processes.placement import News
from launch.processes.wiring import Given
from launch.processes.workers import Weights


@ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)
class PeerActor:
    """A thin shell around a ``RolloutWorker`` and a ``Learning`` that share one network."""

    def __init__(self, config_json: str, stream: int, given: Given) -> None:
        import torch

        from launch.processes.wiring import build_peer

        config = TrainConfig.model_validate_json(config_json)
        torch.set_num_threads(config.threads)
        self._worker, self._learning = build_peer(config, stream, given)
        self._group: Group = Alone()
        self._rollout: WorkerRollout | None = None
        """Collected and not scored yet: what ``learn`` takes; None = there is none."""
        self._growth = MemoryGrowth()

    def node(self) -> tuple[str, str, int]:
        """This machine's id, its address, and a port that is free there."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            port = probe.getsockname()[1]
        return ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address(), port

    def join(self, invitation: Invitation, rank: int, size: int) -> None:
        """Leave the old group, enter a new one."""
        self._group.close()
        self._group = Alone()
        self._group = invitation.join(rank, size)
        self._learning.learner.group = self._learning.mix.group = self._group

    def collect(self) -> Mapping[int, str]:
        """Play a rollout, unless one is waiting to be learned from; returns its new captions."""
        if self._rollout is None:
            self._worker.policy.version = self._learning.learner.version
            self._rollout = self._worker.collect()
        return self._rollout.rollout.new_captions

    def learn(self, news: News, share: float) -> UpdateReport:
        """Score the rollout and learn from it, together with the others."""
        assert self._rollout is not None, "every learn follows a collect"
        self._learning.take(news)
        batch = [self._rollout]
        outputs = self._learning.score(batch)
        # From here on memories are past this rollout: it cannot be scored a second time.
        self._rollout = None
        report = self._learning.learn(batch, outputs, share)
        self._growth.settle()
        return report

    def grown_mb(self) -> float:
        """Growth of the process's memory since the first update, in MB."""
        return self._growth.mb

    def weights(self) -> Weights:
        """Copies of the network's weights."""
        return weights_of(self._learning.learner.model)

    def common_state(self) -> State:
        """See ``Learning``."""
        return self._learning.common_state()

    def load_common_state(self, state: State, weights: Weights) -> None:
        """Continue with this network, optimiser, values and normalisers."""
        self._learning.learner.load_weights(weights)
        self._learning.load_common_state(state)

    def own_state(self) -> State:
        """Games and what follows them. A rollout that a broken update left behind is dropped."""
        self._rollout = None
        return {"worker": self._worker.state_dict(), "learning": self._learning.own_state()}

    def load_own_state(self, state: State) -> None:
        """Continue from ``own_state``."""
        self._learning.load_own_state(state["learning"])
        self._worker.load_state_dict(state["worker"])

    def close(self) -> None:
        """Close the games, remove their temporary folders, and end the processes that rewards started."""
        self._worker.close()
        self._learning.close()


class _Seat:
    """One peer's place: outlives the actors that take it."""

    def __init__(self, stream: int) -> None:
        self.stream = stream
        self.actor: Any = None
        self.holds_network = True
        """The run's network, and not the one that every peer begins with."""


class _LostError(Exception):
    """Peers died; their seats and causes."""

    def __init__(self, lost: Mapping[int, RayError]) -> None:
        super().__init__(f"{len(lost)} peers died")
        self.lost = lost


class SymmetricPlacement:
    """Peers; a dead one is replaced by one with games of its own, which is given the others' network.

    An update in which a peer dies does not count, and the rollouts that had been scored for it are dropped; what
    gradient steps it had taken by then stay in the network, the same in all peers.

    Args:
        config: the run's; each peer builds itself from it.
        on_death: called with a peer's stream and what it died of.
        given: what the rewards found in the run's folder; None = nothing.

    Raises:
        RunError: from every method: peers died more often than ``rollout.max_worker_deaths`` allows, all of
            them died, or one raised an error (which its replacement would raise again).
    """

    def __init__(self, config: TrainConfig, on_death: Callable[[int, str], None], given: Given | None = None) -> None:
        self._given = given or {}
        self._size = config.rollout.num_workers
        self._recycle_mb = config.rollout.recycle_growth_mb
        self._config_json = config.model_dump_json()
        self._watch = DeathWatch(config.rollout.max_worker_deaths, "peer", on_death)
        self.dropped_rollouts = 0
        self._meeting: Meeting | None = None
        self._seats = [_Seat(stream) for stream in range(self._size)]
        for seat in self._seats:
            self._start(seat)
        self._until_all_live(self._meet)

    @property
    def deaths(self) -> int:
        """Peers that died and were replaced."""
        return self._watch.deaths

    def _start(self, seat: _Seat) -> None:
        seat.actor = PeerActor.remote(self._config_json, seat.stream, self._given)

    def _meet(self) -> None:
        """Form the group, again where members were replaced."""
        nodes = self._ask(lambda rank, actor: actor.node.remote())
        here = ray.get_runtime_context().get_node_id()
        together = all(node == here for node, _, _ in nodes)
        meeting: Meeting | None = shared_memory_meeting(self._size) if together else None
        meeting = meeting or GlooMeeting(*nodes[0][1:])
        self._meeting, invitation = meeting, meeting.invitation
        try:
            self._ask(lambda rank, actor: actor.join.remote(invitation, rank, self._size))
        finally:
            meeting.close()

    def _ask(self, question: Callable[[int, Any], Any], ranks: Sequence[int] | None = None) -> list[Any]:
        """What the peers (all, or those of some ranks) answer, in the order of ranks.

        Raises:
            _LostError: some died; the others have answered or given up.
            RunError: one failed.
        """
        ranks = range(self._size) if ranks is None else ranks
        asked = {question(rank, self._seats[rank].actor): rank for rank in ranks}
        waiting, answers = list(asked), {}
        lost: dict[int, RayError] = {}
        while waiting:
            (ready,), waiting = ray.wait(waiting, num_returns=1)
            rank = asked[ready]
            try:
                answers[rank] = ray.get(ready)
            except RayTaskError as error:
                if not isinstance(error.cause, GroupBrokenError):
                    self._abort()
                    raise RunError(f"peer {self._seats[rank].stream} failed: {error.cause}") from error
            except RayError as error:  # its process, its node or its memory is gone
                lost[rank] = error
                self._abort()
        if lost:
            raise _LostError(lost)
        if len(answers) < len(ranks):
            raise RunError("peers lost touch with each other, though none of them died; go on with --resume")
        return [answers[rank] for rank in ranks]

    def _abort(self) -> None:
        if self._meeting is not None:
            self._meeting.abort()

    def _replace(self, lost: Mapping[int, RayError]) -> None:
        """New peers for the dead ones; all get the network of one that holds it."""
        for rank, error in lost.items():
            seat = self._seats[rank]
            seat.holds_network = False
            self.dropped_rollouts += 1
            self._watch.record(seat.stream, error)
            # A stream of its own: the replacement plays other games under other episode ids.
            seat.stream += self._size
            self._start(seat)
        holders = [rank for rank, seat in enumerate(self._seats) if seat.holds_network]
        if not holders:
            raise RunError("every peer died, and their network with them; go on with --resume")
        (weights,) = self._ask(lambda rank, actor: actor.weights.remote(), holders[:1])
        (common,) = self._ask(lambda rank, actor: actor.common_state.remote(), holders[:1])
        self._meet()
        self._ask(lambda rank, actor: actor.load_common_state.remote(common, weights))
        for seat in self._seats:
            seat.holds_network = True

    def _until_all_live(self, work: Callable[[], Any]) -> Any:
        """Do the work; where peers die of it, replace them and do it again."""
        while True:
            try:
                return work()
            except _LostError as error:
                self._recover(error.lost)

    def _recover(self, lost: Mapping[int, RayError]) -> None:
        while lost:
            try:
                self._replace(lost)
                return
            except _LostError as error:
                lost = error.lost

    def collect(self) -> Mapping[int, str]:
        """Every peer plays a rollout and keeps it."""
        found = self._until_all_live(lambda: self._ask(lambda rank, actor: actor.collect.remote()))
        return {caption: text for captions in found for caption, text in captions.items()}

    def learn(self, news: News, share: float) -> list[UpdateReport]:
        """Every peer scores its rollout; all learn together."""
        try:
            return self._ask(lambda rank, actor: actor.learn.remote(news, share))
        except _LostError as error:
            self.dropped_rollouts += self._size - len(error.lost)
            self._recover(error.lost)
            return []

    def drain(self) -> Iterator[Mapping[int, str]]:
        """Nothing is ever under way between updates."""
        return iter(())

    def weights(self) -> Weights:
        """The first peer's copy, which is equal to the others'."""
        (weights,) = self._until_all_live(lambda: self._ask(lambda rank, actor: actor.weights.remote(), [0]))
        return weights

    def state_dict(self) -> State:
        """What all have in common, and each peer's own."""
        return self._until_all_live(self._state)

    def _state(self) -> State:
        own = self._ask(lambda rank, actor: actor.own_state.remote())
        (common,) = self._ask(lambda rank, actor: actor.common_state.remote(), [0])
        return {
            "common": common,
            "peers": [{"stream": seat.stream, "state": state} for seat, state in zip(self._seats, own, strict=True)],
        }

    def load_state_dict(self, state: Mapping[str, Any], weights: Weights) -> None:
        """Continue from ``state_dict`` and ``weights``."""
        try:
            self._load(state, weights)
        except _LostError as error:
            raise RunError("a peer died while the run was being restored; go on with --resume") from error

    def _load(self, state: Mapping[str, Any], weights: Weights) -> None:
        for seat, saved in zip(self._seats, state["peers"], strict=True):
            if saved["stream"] != seat.stream:
                ray.kill(seat.actor)
                seat.stream = int(saved["stream"])
                self._start(seat)
        self._meet()
        common, kept = ray.put(state["common"]), ray.put(dict(weights))
        self._ask(lambda rank, actor: actor.load_common_state.remote(common, kept))
        self._ask(lambda rank, actor: actor.load_own_state.remote(state["peers"][rank]["state"]))

    def recycle(self, state: Mapping[str, Any]) -> list[int]:
        """Replace the processes of peers that grew too much; the group is formed again with the new ones."""
        grown = self._until_all_live(lambda: self._ask(lambda rank, actor: actor.grown_mb.remote()))
        chosen = [rank for rank, mb in enumerate(grown) if mb > self._recycle_mb]
        if not chosen:
            return []
        weights = self.weights()
        self._until_all_live(lambda: self._ask(lambda rank, actor: actor.close.remote(), chosen))
        for rank in chosen:
            ray.kill(self._seats[rank].actor)
            self._start(self._seats[rank])
        self.load_state_dict(state, weights)
        return [self._seats[rank].stream for rank in chosen]

    def close(self) -> None:
        """Let the peers close their games, then end them."""
        self._abort()
        closing = [seat.actor.close.remote() for seat in self._seats]
        ray.wait(closing, num_returns=len(closing), timeout=10.0)
        for seat in self._seats:
            with suppress(RayError):
                ray.kill(seat.actor)
