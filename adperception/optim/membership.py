"""Who takes part: membership epochs, each with its own process groups, agreed through a store.

Workers do not leave one by one. A roll call without somebody, or a failed round, ends the epoch; who is left agrees on
the members of the next one and builds new groups. Every way out of an epoch is a decision in the store that all members
read, so they cannot disagree about who is in.

With T the round time-out: a roll call, a collective and a vote end after T; announcing oneself for the next epoch after
1.2 T, because others may be stuck in a collective that long; connecting after 0.4 T, and announcing oneself once more,
if that failed, after 0.5 T. A worker that is not connected 2.9 T after a failure stops with an error.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import torch
from torch import distributed as dist
from torch.distributed.distributed_c10d import PrefixStore

from adperception.optim.agreement import Present, RollCalls, Verdict, Votes, name_workers
from adperception.optim.bounded_calls import BoundedCalls
from adperception.optim.collectives import RoundFailedError
from adperception.optim.communication_errors import (
    CommunicatorError,
    ExcludedError,
    StoreLostError,
    WorkersLostError,
)
from adperception.optim.process_groups import ProcessGroups

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

__all__ = ["LostWorker", "Membership", "own_connection"]

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")

# In round time-outs; see the module's docstring.
_ANNOUNCE = 1.2
_ANNOUNCE_AGAIN = 0.5
_CONNECT = 0.4
_TOTAL = 2.9
_STORE_SLACK = 0.5


@dataclass(frozen=True)
class LostWorker:
    """A worker that the others went on without.

    Attributes:
        worker_id: which.
        round_number: the round in which it was missed.
        reason: what was seen of it.
        unix_time: when, seconds.
    """

    worker_id: int
    round_number: int
    reason: str
    unix_time: float


class Membership:
    """One worker's view of who takes part. Alone, it needs no store.

    Args:
        store: a connection that nobody else waits in; keys go below the prefix, which belongs to this membership alone.
        prefix: see ``store``.
        worker_id: this worker.
        workers: all worker ids, in ascending order.
        round_timeout_seconds: T.
        regroups: whether survivors go on.
        nccl: whether tensors on a GPU are communicated with NCCL.

    Attributes:
        members: worker ids of all that are left, in ascending order.
        round_number: of the last roll call, from 0.
        lost: the workers that the others went on without.
        ended: the error that ended this worker's part, raised by everything that is asked for afterwards.
    """

    def __init__(
        self,
        store: Store,
        prefix: str,
        worker_id: int,
        workers: Sequence[int],
        *,
        round_timeout_seconds: float,
        regroups: bool,
        nccl: bool = False,
    ) -> None:
        self._store = PrefixStore(prefix, store)
        self._worker_id = worker_id
        self._limit = round_timeout_seconds
        self._regroups = regroups
        self._nccl = nccl
        self._bounded = BoundedCalls()
        self._groups_store: Store | None = None
        self._epoch = 0
        self._tickets = 0
        self._groups: ProcessGroups | None = None
        self.members = tuple(workers)
        self.round_number = -1
        self.lost: list[LostWorker] = []
        self.ended: CommunicatorError | None = None

    @property
    def alone(self) -> bool:
        """Whether nobody else is left, or ever was."""
        return len(self.members) == 1

    def start(self, limit_seconds: float, options: dict[str, Any]) -> None:
        """Wait until all workers are there, and connect.

        Args:
            limit_seconds: how long to wait.
            options: JSON values that all workers have to have in common.

        Raises:
            ValueError: workers with different options, or a worker id that is already there.
            WorkersLostError: not all are there in time, or they cannot connect.
            StoreLostError: the store cannot be reached.
        """
        if self.alone:
            return
        if self._ask(lambda: self._store.add(f"joined/{self._worker_id}", 1), self._limit) != 1:
            raise ValueError(
                f"worker_id={self._worker_id} is already there: two workers have the same id, or the store served an "
                "earlier run. Give each run a store of its own, or a name of its own (name=...)."
            )
        # Groups that are being built wait in their store, and what waits in a connection blocks it. It is kept for the
        # next groups: a TCPStore asks name servers about whoever connects, which can take longer than connecting may.
        self._groups_store = self._ask(lambda: own_connection(self._store), limit_seconds)
        present = self._hold(RollCalls(self._store, "start", self._worker_id, self.members), options, limit_seconds)
        missing = [worker for worker in self.members if worker not in present.notes]
        if missing:
            self._stop_for(f"{name_workers(missing)} did not start within {limit_seconds:g} s")
        for worker, theirs in present.notes.items():
            if theirs != options:
                raise ValueError(
                    f"worker {worker} has {theirs}, worker {self._worker_id} has {options}: give all workers the same"
                )
        if not self._connect(self.members, self._limit):
            self._stop_for("not all workers can reach each other (GLOO_SOCKET_IFNAME names gloo's network interface)")

    def roll_call(self, note: Any) -> dict[int, Any]:
        """Wait for all members, or go on without those who do not come.

        Args:
            note: JSON values for the others.

        Returns:
            The notes by worker id, in ascending order; its keys are the members.
        """
        self.round_number += 1
        while not self.alone:
            start = time.monotonic()
            present = self._hold(self._roll_calls, note, self._limit)
            if len(present.notes) == len(self.members):
                return present.notes
            missing = [worker for worker in self.members if worker not in present.notes]
            reason = f"not there after {self._limit:g} s"
            if not self._regroups:
                self._stop_for(f"{name_workers(missing)} {reason} in {self._where}")
            self._lose(missing, reason)
            self._drop_groups()
            if not self._connect(tuple(present.notes)):
                self._regroup("members could not connect", self.members, start, _ANNOUNCE_AGAIN)
        return {self._worker_id: note}

    def take_ticket(self) -> int:
        """The next number of a counter that all members share, from 0 in each membership epoch.

        Raises:
            StoreLostError: the store cannot be reached.
        """
        if self.alone:
            self._tickets += 1
            return self._tickets - 1
        return int(self._ask(lambda: self._store.add(f"{self._epoch}/tickets", 1), self._limit)) - 1

    def groups(self, among: tuple[int, ...] | None, device: torch.device) -> ProcessGroups:
        """The process groups of this epoch, with the one for ``among`` in place.

        Raises:
            RuntimeError: one of ``among`` could not be reached in time; the round has to be failed.
        """
        groups = self._groups
        assert groups is not None, "a member that is not alone has groups"
        if not groups.has(among, device):
            self._build(lambda _: groups.add(among, device), self._limit)
        return groups

    def agree(self) -> None:
        """Vote to go on with the round.

        Raises:
            RoundFailedError: somebody refused, or was not heard of in time.
        """
        if self.alone:
            return
        start = time.monotonic()
        verdict = self._ask(lambda: self._votes.agree(self._limit), self._limit)
        if not verdict.agreed:
            self._undo(verdict, start)

    def fail(self, reason: str, blocked_since: float) -> NoReturn:
        """Refuse to go on with the round.

        Args:
            reason: for everybody's messages.
            blocked_since: when this worker began what failed, on the monotonic clock.

        Raises:
            RoundFailedError: always, if this worker can take part in another round.
        """
        self._undo(self._ask(lambda: self._votes.refuse(reason), self._limit), blocked_since)

    def leave(self, reason: str) -> None:
        """End this worker's part in the middle of a round; the others need not wait for it."""
        self.ended = CommunicatorError(f"worker {self._worker_id} left the others in {self._where} ({reason})")
        if self.alone:
            return
        try:
            self._bounded(lambda: self._votes.refuse(reason, leaves=True), _STORE_SLACK * self._limit)
        except (TimeoutError, RuntimeError) as problem:
            _log.warning("the others could not be told that this worker leaves: %s", problem)
        self._drop_groups()

    def _undo(self, verdict: Verdict, start: float) -> NoReturn:
        """Agree on who is left after a failed round."""
        self._drop_groups()
        before, expected = self.members, self.members
        if verdict.leaver is not None:
            self._lose([verdict.leaver], verdict.reason)
            expected = tuple(worker for worker in before if worker != verdict.leaver)
        self._regroup(verdict.reason, expected, start, _ANNOUNCE)
        lost = [worker for worker in before if worker not in self.members]
        raise RoundFailedError(
            f"{self._where} failed and was undone ({verdict.reason}). {name_workers(lost).capitalize()} lost; going on "
            f"with {name_workers(self.members)}."
        )

    def _regroup(self, reason: str, expected: tuple[int, ...], start: float, limit: float) -> None:
        """Agree on who is left, and connect.

        Args:
            reason: what went wrong, for messages.
            expected: the workers that may announce themselves.
            start: since when this worker is blocked, on the monotonic clock.
            limit: how long to wait for them, in round time-outs.
        """
        connected_at: float | None = None
        while len(expected) > 1:
            self._epoch += 1
            calls = RollCalls(self._store, f"{self._epoch}/announce", self._worker_id, expected)
            present = self._hold(calls, None, limit * self._limit)
            missing = [worker for worker in expected if worker not in present.notes]
            if not self._regroups:
                seen = f"; {name_workers(missing)} did not answer afterwards" if missing else ""
                self._stop_for(f"{self._where} failed: {reason}{seen}")
            self._lose(missing, f"did not answer after: {reason}")
            if missing and connected_at is not None:
                # They have announced themselves before that: another failure, with the time limit of its own.
                start = connected_at
            connected_at = time.monotonic()
            if connected_at > start + (_TOTAL - _CONNECT) * self._limit:
                self._stop_for(f"{self._where}: no new group within {_TOTAL} round time-outs after: {reason}")
            expected = tuple(present.notes)
            if self._connect(expected):
                return
            limit, reason = _ANNOUNCE_AGAIN, "members could not connect"
        if not self._regroups:
            self._stop_for(f"{self._where} failed: {reason}")
        self.members = expected

    def _connect(self, members: tuple[int, ...], seconds: float | None = None) -> bool:
        """Go on with these members: build the groups, start counting; whether it worked for all of them."""
        self._epoch += 1
        self.members = members
        if self.alone:
            return True
        epoch, limit = self._epoch, _CONNECT * self._limit if seconds is None else seconds
        votes = Votes(self._store, f"{epoch}/built", self._worker_id, len(members))
        try:
            self._groups = self._build(
                lambda store: ProcessGroups(
                    store,
                    f"{epoch}",
                    self._worker_id,
                    members,
                    timeout_seconds=self._limit,
                    nccl=self._nccl,
                ),
                limit,
            )
        except RuntimeError as error:
            reason = f"cannot connect: {_first_line(error)}"
            verdict = self._ask(lambda: votes.refuse(reason), self._limit)
        else:
            verdict = self._ask(lambda: votes.agree(1.2 * limit), 1.2 * limit)
        if not verdict.agreed:
            self._drop_groups()
            _log.warning("%s: new groups of %s failed (%s)", self._where, name_workers(members), verdict.reason)
            return False
        self._roll_calls = RollCalls(self._store, f"{epoch}/round", self._worker_id, members)
        self._votes = Votes(self._store, f"{epoch}/commit", self._worker_id, len(members))
        return True

    def _build(self, function: Callable[[Store], _Result], limit_seconds: float) -> _Result:
        """Connect to others over a store, in a thread of its own that may go on for longer.

        Raises:
            RuntimeError: it failed, or took too long.
        """
        kept, self._groups_store = self._groups_store, None

        def build() -> tuple[Store, _Result]:
            store = kept or own_connection(self._store)
            return store, function(store)

        try:
            self._groups_store, result = BoundedCalls()(build, limit_seconds)
        except TimeoutError as error:
            raise RuntimeError(f"not all others were reached within {limit_seconds:g} s") from error
        return result

    def _hold(self, calls: RollCalls, note: Any, limit_seconds: float) -> Present:
        """A roll call that this worker is in time for."""
        present = self._ask(lambda: calls.hold(note, limit_seconds, self._where), limit_seconds)
        if self._worker_id not in present.notes:
            late = time.time() - present.decided_at
            self._end(
                ExcludedError(
                    f"worker {self._worker_id} came to {self._where} {late:.1f} s after the "
                    f"others had gone on without it. Raise round_timeout_seconds ({self._limit:g}), or take the cause "
                    "away (a checkpoint, an evaluation or data that took this long). It can start again only together "
                    "with all others."
                )
            )
        return present

    def _ask(self, question: Callable[[], _Result], limit_seconds: float) -> _Result:
        """What the store has to say, or an error if it is lost.

        Args:
            question: operations on the store.
            limit_seconds: how long they take at most if the store is there.
        """
        try:
            return self._bounded(question, limit_seconds + _STORE_SLACK * self._limit)
        except (TimeoutError, dist.DistNetworkError) as error:
            self._end(
                StoreLostError(
                    f"worker {self._worker_id} lost the store in {self._where} ({_first_line(error)}). Nothing can be "
                    "agreed without it. Host it in a process that outlives the workers (tools/store.py), and start all "
                    "workers again from their last checkpoint."
                )
            )

    def _stop_for(self, what: str) -> NoReturn:
        self._end(
            WorkersLostError(
                f"{what}. Start all workers again from their last checkpoint (torchrun --max-restarts does), or let "
                f'the others go on with on_failure="regroup". If workers are only slow, raise round_timeout_seconds '
                f"({self._limit:g})."
            )
        )

    def _end(self, error: CommunicatorError) -> NoReturn:
        """This worker's part is over."""
        self._drop_groups()
        self.ended = error
        raise error

    def _drop_groups(self) -> None:
        """Let go of the groups, without waiting for what may still go on in them for a round time-out."""
        holder, self._groups = [self._groups], None
        if holder != [None]:
            threading.Thread(target=holder.clear).start()

    def _lose(self, workers: Sequence[int], reason: str) -> None:
        now = time.time()
        self.lost += [LostWorker(worker, self.round_number, reason, now) for worker in workers]
        if workers:
            _log.warning("%s: going on without %s (%s)", self._where, name_workers(workers), reason)

    @property
    def _where(self) -> str:
        return f"round {self.round_number}" if self.round_number >= 0 else "the start"


def own_connection(store: Store) -> Store:
    """Another connection to a store, where torch can make one."""
    return store.clone() if hasattr(store, "clone") else store


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
