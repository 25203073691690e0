"""Requests of strategies carried out over torch.distributed. A round is a transaction; survivors can regroup.

A round starts with a roll call, which says who takes part. Collectives follow, in process groups of the communicator's
own. Then all members vote through the store, not through the group that may have failed: a worker goes past a
``Commit`` only if all of them do. A worker that fails refuses, and the others hear of it as soon as they vote
themselves, or when their own collective times out.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch import distributed as dist

from adperception.optim.agreement import fingerprint
from adperception.optim.bounded_calls import BoundedCalls
from adperception.optim.collectives import (
    AllReduce,
    Broadcast,
    Commit,
    Note,
    Request,
    Requests,
    RollCall,
    RoundFailedError,
    TakeTicket,
)
from adperception.optim.communication_errors import CommunicatorError, StoreLostError
from adperception.optim.membership import LostWorker, Membership, own_connection
from adperception.optim.process_groups import ProcessGroups
from adperception.optim.request_checks import check_request
from adperception.optim.traffic import sent_bytes

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

__all__ = ["TorchCommunicator"]

_made: Counter[tuple[str, tuple[int, ...], int]] = Counter()


class TorchCommunicator:
    """One worker's end of the communication.

    Without arguments it serves all ranks of ``torch.distributed``, over its store, which ends with the launcher that
    hosts it, or with rank 0. With ``store``, ``worker_id`` and ``workers`` it needs no initialised
    ``torch.distributed``: for workers that each run under a launcher of their own, over a ``TCPStore`` in a process of
    its own (``tools/store.py``) that outlives them.

    All workers make their communicators in the same order, with the same options. A call of ``run`` that raises a
    ``CommunicatorError`` is the last one.

    Args:
        group: the ranks that take part; ``None``: all. Only says who; its own collectives are untouched.
        store: where workers agree; a new one for each run, or with another ``name``. No other thread may wait in this
            object, which makes its owner's rounds wait too.
        worker_id: this worker, one of ``workers``.
        workers: all worker ids, or how many there are.
        round_timeout_seconds: how long to wait for others in a roll call, in a collective and in a vote. It has to be
            longer than the slowest collective, and than what workers differ by in the time that they need between two
            rounds, evaluations and checkpoints included. Nobody is blocked for more than three times as long.
        on_failure: ``"raise"``: a lost worker is an error on all others, for launchers that restart all of them.
            ``"regroup"``: the others go on, the last one alone if need be.
        backend: ``"gloo"`` (also for tensors on GPUs, which it copies over the CPU), or ``"nccl"`` for tensors on GPUs
            and gloo for those on the CPU. ``None``: NCCL if the group has it, unless survivors regroup; otherwise gloo.
        name: part of all keys in the store, for runs that share one.
        start_timeout_seconds: how long to wait for all workers to make their communicators.

    Attributes:
        bytes_sent: by this worker in collectives that succeeded, see ``sent_bytes``; roll calls and votes do not count.
        rounds_committed: rounds that this worker went through with.
        rounds_aborted: rounds that failed.
        last_round_seconds: duration of the last ``run``, waiting for others included.
        total_round_seconds: sum over all of them.

    Raises:
        ValueError: an option out of range; workers with different options; a worker id that is already there.
        RuntimeError: no ``store``, and ``torch.distributed`` is not initialised.
        WorkersLostError: not all workers make their communicators in time, or they cannot connect.
        StoreLostError: the store cannot be reached.
    """

    def __init__(
        self,
        group: dist.ProcessGroup | None = None,
        *,
        store: Store | None = None,
        worker_id: int | None = None,
        workers: int | Sequence[int] | None = None,
        round_timeout_seconds: float = 30.0,
        on_failure: Literal["raise", "regroup"] = "raise",
        backend: Literal["gloo", "nccl"] | None = None,
        name: str = "optim",
        start_timeout_seconds: float = 300.0,
    ) -> None:
        for option, seconds in (("round", round_timeout_seconds), ("start", start_timeout_seconds)):
            if not 0 < seconds < math.inf:
                raise ValueError(f"{option}_timeout_seconds={seconds}: needs a positive, finite number of seconds")
        if on_failure not in ("raise", "regroup"):
            raise ValueError(f'on_failure={on_failure!r}: needs "raise" or "regroup"')
        if backend not in (None, "gloo", "nccl"):
            raise ValueError(f'backend={backend!r}: needs "gloo", "nccl" or None')
        if on_failure == "regroup" and backend == "nccl":
            raise ValueError('on_failure="regroup" needs backend="gloo": NCCL ends processes whose peers are lost')
        if store is None:
            store, worker_id, ids, found = _of_torch_distributed(group, worker_id, workers)
            store = _connected(store, start_timeout_seconds)
            backend = backend or ("gloo" if on_failure == "regroup" else found)
        else:
            worker_id, ids = _of_arguments(group, worker_id, workers)
        made = _made[name, ids, worker_id]
        _made[name, ids, worker_id] += 1
        self._worker_id = worker_id
        self._in_round = False
        self._committed = False
        self.bytes_sent = 0
        self.rounds_committed = 0
        self.rounds_aborted = 0
        self.last_round_seconds = 0.0
        self.total_round_seconds = 0.0
        self._membership = Membership(
            store,
            f"{name}/{fingerprint(ids)}/{made}",
            worker_id,
            ids,
            round_timeout_seconds=round_timeout_seconds,
            regroups=on_failure == "regroup",
            nccl=backend == "nccl",
        )
        options = {"on_failure": on_failure, "round_timeout_seconds": round_timeout_seconds}
        self._membership.start(start_timeout_seconds, options)

    is_simulated = False

    @property
    def worker_id(self) -> int:
        """Which worker this is: the rank that it started with."""
        return self._worker_id

    @property
    def members(self) -> tuple[int, ...]:
        """Worker ids of all that are left, in ascending order."""
        return self._membership.members

    @property
    def workers_lost(self) -> tuple[LostWorker, ...]:
        """The workers that the others went on without, in the order in which they were lost."""
        return tuple(self._membership.lost)

    def run(self, requests: Requests) -> Any:
        """Drive a generator to its end; what it returns.

        A failure is thrown into the generator after the others were told, and after survivors have regrouped.

        Raises:
            RoundFailedError: where a request failed and the generator does not catch it; the members may be fewer now.
            WorkersLostError: workers are missing, and this run does not go on without them.
            ExcludedError: the others went on without this worker.
            StoreLostError: the store cannot be reached.
        """
        start = time.perf_counter()
        try:
            request = next(requests)
            while True:
                try:
                    answer = self._answer(request)
                except (RoundFailedError, CommunicatorError) as error:
                    self.rounds_aborted += self._in_round
                    self._in_round = False
                    request = requests.throw(error)
                else:
                    request = requests.send(answer)
        except StopIteration as end:
            return end.value
        except (RoundFailedError, CommunicatorError):
            raise
        except BaseException as error:
            if self._in_round:
                self._membership.leave(f"{type(error).__name__}: {error}")
            raise
        finally:
            requests.close()
            self._in_round = False
            self.last_round_seconds = time.perf_counter() - start
            self.total_round_seconds += self.last_round_seconds

    def _answer(self, request: Request) -> Any:
        if self._membership.ended is not None:
            raise self._membership.ended
        if isinstance(request, RollCall):
            notes = self._membership.roll_call(asdict(request.note))
            self._in_round, self._committed = True, False
            return {worker: Note(**note) for worker, note in notes.items()}
        if isinstance(request, TakeTicket):
            return self._membership.take_ticket()
        if not self._in_round:
            raise RuntimeError(f"{type(request).__name__} outside of a round: a round starts with a RollCall")
        if isinstance(request, Commit):
            self._membership.agree()
            self.rounds_committed += not self._committed
            self._committed = True
            return None
        check_request(request, self._worker_id, self.members)
        if isinstance(request, AllReduce):
            self._carry_out(request, request.tensor, lambda groups: groups.all_reduce(request.tensor))
            return request.tensor
        if isinstance(request, Broadcast):
            root, among = request.root, request.among
            self._carry_out(request, request.tensor, lambda groups: groups.broadcast(request.tensor, root, among))
            return request.tensor
        if self._membership.alone:
            return torch.mul(request.source, request.own_weight, out=request.out)
        self._carry_out(request, request.source, lambda groups: groups.mix(request))
        return request.out

    def _carry_out(self, request: Request, tensor: Tensor, collective: Callable[[ProcessGroups], None]) -> None:
        """Take part in a collective; where it fails, so does the round."""
        among = request.among if isinstance(request, Broadcast) else None
        if self._membership.alone or tensor.numel() == 0 or among == (self._worker_id,):
            return
        start = time.monotonic()
        try:
            collective(self._membership.groups(among, tensor.device))
        except CommunicatorError:
            raise
        except RuntimeError as error:
            reason = f"{type(request).__name__} failed: {str(error).splitlines()[0]}"
        else:
            self.bytes_sent += sent_bytes(request, self._worker_id, self.members)
            return
        # Outside of the handler: the error's traceback would keep the groups alive.
        self._membership.fail(reason, start)


def _connected(store: Store, limit_seconds: float) -> Store:
    """A connection of one's own: a thread that waits in a store blocks all others in it."""
    try:
        return BoundedCalls()(lambda: own_connection(store), limit_seconds)
    except (TimeoutError, dist.DistNetworkError) as error:
        raise StoreLostError(
            f"the store cannot be reached: {error}. It has to run (tools/store.py) all the time."
        ) from error


def _of_torch_distributed(
    group: dist.ProcessGroup | None, worker_id: int | None, workers: int | Sequence[int] | None
) -> tuple[Store, int, tuple[int, ...], Literal["gloo", "nccl"]]:
    """Store, worker id, workers and backend of what torch.distributed was initialised with."""
    if worker_id is not None or workers is not None:
        raise ValueError("worker_id= and workers= belong to a store of your own: pass store= too, or none of them")
    if not (dist.is_available() and dist.is_initialized()):
        raise RuntimeError(
            "torch.distributed is not initialised: call torch.distributed.init_process_group() first (under torchrun "
            "it needs no arguments), or pass store=, worker_id= and workers=."
        )
    ranks = tuple(sorted(dist.get_process_group_ranks(group or dist.group.WORLD)))
    rank = dist.get_rank()
    if rank not in ranks:
        raise ValueError(f"rank {rank} is not in the group of ranks {ranks}: make its communicator on these ranks only")
    store = dist.distributed_c10d._get_default_store()
    return store, rank, ranks, "nccl" if "nccl" in dist.get_backend_config(group) else "gloo"


def _of_arguments(
    group: dist.ProcessGroup | None, worker_id: int | None, workers: int | Sequence[int] | None
) -> tuple[int, tuple[int, ...]]:
    """Worker id and workers, as given."""
    if group is not None or worker_id is None or workers is None:
        raise ValueError("store= needs worker_id= and workers=, and no group")
    ids = tuple(range(workers)) if isinstance(workers, int) else tuple(sorted(set(workers)))
    if worker_id not in ids:
        raise ValueError(f"worker_id={worker_id} is not one of the workers {ids}")
    return worker_id, ids
