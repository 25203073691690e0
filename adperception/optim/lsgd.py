"""LSGD: workers are pulled to the one with the lowest training loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from adperception.optim.collectives import Broadcast, Commit, Requests
from adperception.optim.strategy import Order, Strategy, finite_losses, require, require_order
from adperception.optim.worker import Worker

__all__ = ["LSGD"]


@dataclass(frozen=True)
class LSGD(Strategy):
    """Leader SGD (Teng, Gao, Chalus, Choromanska, Goldfarb, Weller, NeurIPS 2019, arXiv 1905.10395).

    A round with G, the parameters of the worker whose mean training loss of late is lowest (the first of equals):

        ``x_m <- x_m + pull (G - x_m)``

    and, when a round comes every tau steps, after every local step until the next one

        ``x_m <- x_m + (proximal / tau) (G - x_m)``.

    In words: everybody moves towards the leader, which itself stays where it is, and is then drawn to where the leader
    was. With ``groups`` > 1 (multi-leader LSGD) every round has a leader S per group, with ``local_pull`` and
    ``local_proximal``; every ``global_every``-th round is followed by one with a leader of all.

    A worker whose loss or parameters are not finite cannot lead; with no possible leader the round is skipped.

    Args:
        pull: towards the leader of all (c2 in the authors' code, lambda or lambda_G in the paper).
        proximal: towards the last leader of all, spread over the steps between its elections (p2).
        groups: number of equal groups of consecutive workers; 1: a single leader.
        global_every: with several groups, a leader of all every so many rounds.
        local_pull: towards the leader of the group (c1).
        local_proximal: towards the last leader of the group, spread over the steps between two rounds (p1).
        loss_window: how many losses an election averages; ``None``: those since the last round, as in the authors'
            code.
        leader_metric: ``"train_loss"``, of the mini-batches trained on, or ``"probe_loss"``, what the probe returns.
        pull_scaled_by_lr: multiply the pulls with the learning rate, as in the paper's theorems.
        order: ``"step_then_pull"`` (authors' code, Algorithm 1) or ``"joint"`` (the paper's equation).

    State: the last leader (P, replicated), with groups also that of the group (P). Traffic: one broadcast of P per
    round; the losses travel with the roll call. Consensus: the mean.
    """

    pull: float = 0.1
    proximal: float = 0.1
    groups: int = 1
    global_every: int = 4
    local_pull: float = 0.1
    local_proximal: float = 0.1
    loss_window: int | None = None
    leader_metric: Literal["train_loss", "probe_loss"] = "train_loss"
    pull_scaled_by_lr: bool = False
    order: Order = "step_then_pull"

    replicated: ClassVar[tuple[str, ...]] = ("leader",)

    def __post_init__(self) -> None:
        for name in ("pull", "proximal", "local_pull", "local_proximal"):
            require(self, name, getattr(self, name), 0, 1)
        require(self, "groups", self.groups, 1)
        require(self, "global_every", self.global_every, 1)
        if self.loss_window is not None:
            require(self, "loss_window", self.loss_window, 1)
        if self.leader_metric not in ("train_loss", "probe_loss"):
            raise ValueError(
                f'LSGD: leader_metric="{self.leader_metric}" is unknown. Available: train_loss, probe_loss.'
            )
        require_order(self, self.order)

    @property
    def losses_averaged(self) -> int | None:
        """The window of an election."""
        return self.loss_window

    @property
    def needs_loss(self) -> bool:
        """Elections need losses."""
        return self.leader_metric == "train_loss"

    @property
    def needs_probe(self) -> bool:
        """Elections may be by the probe's loss."""
        return self.leader_metric == "probe_loss"

    @property
    def has_step_work(self) -> bool:
        """The proximal terms."""
        return self.proximal > 0 or (self._has_groups and self.local_proximal > 0)

    def election_loss(self, worker: Worker) -> float:
        """What this worker says of itself at the roll call."""
        return worker.probe_loss() if self.leader_metric == "probe_loss" else worker.losses.mean()

    def start(self, worker: Worker) -> None:
        """The leaders start at the common parameters."""
        if len(worker.workers) % self.groups:
            raise ValueError(
                f"LSGD: groups={self.groups} does not divide {len(worker.workers)} workers into equal groups. Use a "
                "divisor, or groups=1 for a single leader."
            )
        worker.state["leader"] = worker.vector.clone()
        if self._has_groups:
            worker.state["local_leader"] = worker.vector.clone()

    def after_step(self, worker: Worker, sync_every: float) -> None:
        """The proximal terms: a small pull to the last leaders."""
        if self.proximal > 0:
            rounds = self.global_every if self._has_groups else 1
            worker.vector.lerp_(worker.state["leader"], self.proximal / (sync_every * rounds))
        if self._has_groups and self.local_proximal > 0:
            worker.vector.lerp_(worker.state["local_leader"], self.local_proximal / sync_every)

    def round(self, worker: Worker) -> Requests:
        """Elect, send the leader's parameters to all, and pull."""
        losses = finite_losses(worker)
        if not losses:
            yield Commit()
            worker.report.skipped = True
            return
        scale = worker.learning_rate if self.pull_scaled_by_lr else 1.0
        pulls: list[tuple[str, float]] = []
        if self._has_groups:
            group = self._group(worker)
            if (yield from _send_leader(worker, losses, group)) is not None:
                worker.state["local_leader"].copy_(worker.scratch_vector)
                pulls.append(("local_leader", self.local_pull * scale))
            if not worker.deferred:
                _apply(worker, pulls)
        if not self._has_groups or (worker.rounds + 1) % self.global_every == 0:
            worker.report.leader = yield from _send_leader(worker, losses, None)
            worker.state["leader"].copy_(worker.scratch_vector)
            pulls.append(("leader", self.pull * scale))
        _apply(worker, pulls)

    @property
    def _has_groups(self) -> bool:
        """With a leader of all in every round, those of the groups would only be its echo."""
        return self.groups > 1 and self.global_every > 1

    def _group(self, worker: Worker) -> tuple[int, ...]:
        """The members of this worker's group."""
        size = len(worker.workers) // self.groups
        number = {w: position // size for position, w in enumerate(worker.workers)}
        return tuple(member for member in worker.members if number[member] == number[worker.worker_id])


def _send_leader(worker: Worker, losses: Mapping[int, float], group: tuple[int, ...] | None) -> Requests:
    """The best of a group (or of all) sends its parameters into everyone's scratch vector; the answer is who it is."""
    candidates = [member for member in group or worker.members if member in losses]
    leader = min(candidates, key=lambda member: losses[member], default=None)
    if leader is not None:
        if leader == worker.worker_id:
            worker.scratch_vector.copy_(worker.vector)
        yield Broadcast(worker.scratch_vector, leader, group)
    yield Commit()
    return leader


def _apply(worker: Worker, pulls: list[tuple[str, float]]) -> None:
    for name, strength in pulls:
        worker.pull(worker.state[name], strength)
    pulls.clear()
