"""Worker processes for tests, and the failures that can be injected into them.

Processes are forked from a server that has imported torch, so that one starts within some 50 ms::

    pool = WorkerPool()
    outcomes = pool.run(work, 3, timeout_seconds=10)  # work(place, *arguments) in 3 processes
    outcomes[1].returned, outcomes[2].exit_code

    def work(place: Place) -> list[float]:
        communicator = place.communicator(round_timeout_seconds=1.0, on_failure="regroup")
        communicator = Faulty(communicator, [Kill(worker=2, round_number=3, where="in collective")])
        ...

The store lives in the process that holds the pool, and so outlives the workers.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

import torch
from torch import distributed as dist

from adperception.optim.agreement import Votes
from adperception.optim.collectives import AllReduce, Broadcast, Commit, Mix, Request, Requests, RollCall
from adperception.optim.membership import Membership
from adperception.optim.torch_communicator import TorchCommunicator

# torch._dynamo: the first optimizer that is made imports it, which takes a second.
PRELOADED = [
    *("torch", "torch.distributed", "torch._dynamo", "pytest", "adperception.optim.torch_communicator"),
    *("adperception.checkpoint.optimizer_state", "adperception.checkpoint.save", "adperception.engine.workers"),
]


@dataclass(frozen=True)
class Place:
    """Where a worker process is: what it needs to join the others.

    Attributes:
        worker_id: from 0.
        workers: how many processes were started.
        port: of the store, on this machine.
    """

    worker_id: int
    workers: int
    port: int

    def store(self) -> dist.TCPStore:
        """A connection to the store."""
        return dist.TCPStore("127.0.0.1", self.port, is_master=False, timeout=timedelta(seconds=10))

    def communicator(self, **options: Any) -> TorchCommunicator:
        """This worker's end of the communication."""
        options = {"start_timeout_seconds": 20.0, **options}
        store = options.pop("store", None) or self.store()
        return TorchCommunicator(store=store, worker_id=self.worker_id, workers=self.workers, **options)


def new_store() -> dist.TCPStore:
    """A store in this process.

    It listens on an IPv4 socket: on its own, IPv6 one it asks name servers about 127.0.0.1 whenever a worker connects.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    return dist.TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach())


@dataclass
class Outcome:
    """What became of a worker.

    Attributes:
        exit_code: of the process; negative: the signal that ended it; ``None``: it hung and was killed.
        returned: what its function returned.
        error: name and message of what it raised.
        seconds: from the start to its end.
    """

    exit_code: int | None = None
    returned: Any = None
    error: str = ""
    seconds: float = 0.0


class WorkerPool:
    """Starts worker processes. Made once, used many times.

    Args:
        preload: modules that the server of the first pool of this process imports before it forks.

    Attributes:
        store: the store of the last ``run``.
    """

    def __init__(self, preload: Sequence[str] = PRELOADED) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(preload))
        self.store: dist.TCPStore

    def run(
        self,
        function: Callable[..., Any],
        workers: int,
        arguments: Sequence[Any] = (),
        *,
        timeout_seconds: float = 20.0,
        port: int | None = None,
    ) -> list[Outcome]:
        """Call ``function(place, *arguments)`` in processes of their own, and wait for them.

        Args:
            function: of a module that can be imported.
            workers: how many processes.
            arguments: what can be pickled.
            timeout_seconds: processes that are still there then are killed.
            port: of a store that is there already; ``None``: a new one.
        """
        if port is None:
            self.store = new_store()
            port = self.store.port
        start = time.monotonic()
        outcomes = [Outcome() for _ in range(workers)]
        running = []
        for worker_id in range(workers):
            receiver, sender = self._context.Pipe(duplex=False)
            place = Place(worker_id, workers, port)
            process = self._context.Process(target=_worker, args=(sender, function, place, tuple(arguments)))
            process.start()
            sender.close()
            running.append((process, receiver, outcomes[worker_id]))
        for process, receiver, outcome in running:
            # Before waiting for its end: a process does not end before its answer is taken.
            if receiver.poll(max(0.0, start + timeout_seconds - time.monotonic())):
                try:
                    outcome.returned, outcome.error = receiver.recv()
                except EOFError:
                    outcome.error = "ended without an answer"
            process.join(max(0.0, start + timeout_seconds - time.monotonic()))
            outcome.exit_code = process.exitcode
            outcome.seconds = time.monotonic() - start
            if process.is_alive():
                os.kill(process.pid, signal.SIGUSR1)  # says where it hangs
                time.sleep(0.5)
                process.kill()
                process.join()
                outcome.error += " hung"
        return outcomes


def _worker(sender: Any, function: Callable[..., Any], place: Place, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    try:
        answer = (function(place, *arguments), "")
    except Exception as error:
        traceback.print_exc()
        answer = (None, f"{type(error).__name__}: {error}")
    sender.send(answer)
    sender.close()


@dataclass(frozen=True)
class Kill:
    """End a worker at once (SIGKILL), without a word to the others.

    Attributes:
        worker: which.
        round_number: rounds are counted from 0, by roll calls.
        where: before it arrives at the roll call; before collective ``index``; ``delay_seconds`` after that has begun;
            after its vote, which is the last one, and before the decision; when the members of the next epoch are known
            and it should connect (something else has to fail in this round).
        index: which collective of the round; the commit counts as one.
        delay_seconds: see ``where``.
    """

    worker: int
    round_number: int
    where: Literal["at arrival", "before collective", "in collective", "between vote and decision", "connecting"]
    index: int = 0
    delay_seconds: float = 0.03


@dataclass(frozen=True)
class Slow:
    """Make a worker late for a round.

    Attributes:
        worker: which.
        round_number: rounds are counted from 0, by roll calls.
        seconds: how long it sleeps before it arrives.
    """

    worker: int
    round_number: int
    seconds: float


@dataclass(frozen=True)
class Raise:
    """Have a worker's strategy raise ``ArithmeticError`` between the roll call and the first collective.

    Attributes:
        worker: which.
        round_number: rounds are counted from 0, by roll calls.
    """

    worker: int
    round_number: int


@dataclass(frozen=True)
class NotANumber:
    """Overwrite a worker's tensors with NaN before they are sent.

    Attributes:
        worker: which.
        round_number: rounds are counted from 0, by roll calls.
    """

    worker: int
    round_number: int


Fault = Kill | Slow | Raise | NotANumber


def kill_oneself() -> None:
    """What a power cut does to a process."""
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at_step(step: int, at: int, worker_id: int, worker: int) -> None:
    """Call it once per training step: ends worker ``worker`` at step ``at``."""
    if worker_id == worker and step == at:
        kill_oneself()


@dataclass
class Faulty:
    """A communicator with failures at chosen rounds; stands in for the one that it wraps.

    Attributes:
        communicator: the real one.
        faults: what goes wrong, on which worker; every worker gets the same list.
        round_number: of the last roll call.
    """

    communicator: TorchCommunicator
    faults: Sequence[Fault]
    round_number: int = field(default=-1, init=False)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.communicator, name)

    def run(self, requests: Requests) -> Any:
        """As the communicator's, with failures."""
        return self.communicator.run(self._with_faults(requests))

    def _with_faults(self, requests: Requests) -> Requests:
        """The same requests, with the failures before or during them."""
        collectives = 0
        try:
            request = next(requests)
            while True:
                if isinstance(request, RollCall):
                    self.round_number += 1
                    collectives = 0
                self._inject(request, collectives)
                collectives += not isinstance(request, RollCall)
                try:
                    answer = yield request
                except Exception as error:
                    request = requests.throw(error)
                else:
                    request = requests.send(answer)
        except StopIteration as end:
            return end.value

    def _inject(self, request: Request, collectives: int) -> None:
        for fault in self.faults:
            if (fault.worker, fault.round_number) != (self.communicator.worker_id, self.round_number):
                continue
            if isinstance(fault, Slow) and isinstance(request, RollCall):
                time.sleep(fault.seconds)
            elif isinstance(fault, Raise) and not isinstance(request, RollCall):
                raise ArithmeticError(f"injected into worker {fault.worker} in round {fault.round_number}")
            elif isinstance(fault, NotANumber) and isinstance(request, AllReduce | Broadcast):
                request.tensor.fill_(float("nan"))
            elif isinstance(fault, NotANumber) and isinstance(request, Mix):
                request.source.fill_(float("nan"))
            elif isinstance(fault, Kill):
                _kill(fault, request, collectives)


def _kill(fault: Kill, request: Request, collectives: int) -> None:
    here = not isinstance(request, RollCall) and collectives == fault.index
    if fault.where == "at arrival" or (fault.where == "before collective" and here):
        kill_oneself()
    elif fault.where == "in collective" and here:
        threading.Timer(fault.delay_seconds, kill_oneself).start()
    elif fault.where == "between vote and decision" and isinstance(request, Commit):
        # The last vote is the one that decides; nobody else writes the decision before its time-out.
        time.sleep(0.2)
        Votes._await_verdict = _dies  # type: ignore[assignment, method-assign]
    elif fault.where == "connecting":
        Membership._connect = _dies  # type: ignore[assignment, method-assign]


def _dies(*_: Any) -> None:
    kill_oneself()
