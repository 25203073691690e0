"""Bytes that strategies send per round, read from the interfaces of hosts in network namespaces, against the formulas.

One worker per host (``network_namespaces.py``) trains a flat model of N parameters with a round after every step. Bytes
that left each host's interface are compared with what ``adperception.optim.traffic`` says of the collective that the
strategy is documented to use: summed over the workers within 2 %, and per worker, as that collective spreads them.
Exits with 1 where a sum or a worker's own count (``TorchCommunicator.bytes_sent``) is off. Needs root:
``sudo python benchmarks/distributed_bytes.py [--strategies LSGD EASGD ...] [--workers 4] [--output FILE]``
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from network_namespaces import SWITCH_ADDRESS, Hosts, require_root
from torch import nn
from torch._C._distributed_c10d import TCPStore  # torch.distributed's own name for it is not typed

from adperception.optim import (
    ALDSGD,
    DPPF,
    DPSGD,
    EASGD,
    LGRAWA,
    LSGD,
    MATCHA,
    MGRAWA,
    DataParallel,
    DiLoCo,
    EverySteps,
    LocalSGD,
    SlowMo,
    Strategy,
    SyncOptimizer,
)
from adperception.optim.torch_communicator import TorchCommunicator
from adperception.optim.traffic import all_reduce_bytes, broadcast_bytes, mix_bytes

REPOSITORY = Path(__file__).resolve().parent.parent
PORT = 29500
TENSORS = 8
UNIT = 64 * TENSORS  # of this many parameters, so that the flat vector has no padding between tensors
LEADER = 1
TOLERANCE = 0.02
SETTLE_SECONDS = 0.05  # for the last acknowledgements

STRATEGIES: dict[str, Strategy] = {
    strategy.name: strategy
    for strategy in (
        DataParallel(),
        LocalSGD(),
        SlowMo(),
        DiLoCo(),
        DPPF(),
        EASGD(),
        LSGD(),
        MGRAWA(),
        LGRAWA(),
        DPSGD(),
        MATCHA(),
        ALDSGD(),
    )
}


@dataclass(frozen=True)
class Sent:
    """Bytes per round, for each worker.

    Attributes:
        by_interface: what left the host, with headers, acknowledgements, roll calls and commits.
        by_counter: what the communicator says.
        expected: payload by the formulas.
    """

    strategy: str
    workers: int
    parameter_bytes: int
    by_interface: tuple[float, ...]
    by_counter: tuple[float, ...]
    expected: tuple[float, ...]

    @property
    def excess(self) -> float:
        return sum(self.by_interface) / sum(self.expected) - 1

    @property
    def is_as_expected(self) -> bool:
        return abs(self.excess) <= TOLERANCE and self.by_counter == self.expected


def expected_bytes(strategy: Strategy, parameters: int, workers: int, rounds: Sequence[int]) -> tuple[float, ...]:
    """Mean payload per round that each worker sends, by what the strategy's documentation says of its traffic."""
    nbytes = 4 * parameters
    members = tuple(range(workers))
    if isinstance(strategy, LSGD):
        return broadcast_bytes(nbytes, workers, root=LEADER)
    if isinstance(strategy, MGRAWA):
        return all_reduce_bytes(nbytes + 4, workers)
    if isinstance(strategy, (LGRAWA, DataParallel)):  # norms of the tensors; which of them have a gradient
        return all_reduce_bytes(nbytes + 4 * TENSORS, workers)
    if isinstance(strategy, (DPSGD, ALDSGD, MATCHA)):
        schedule = strategy.gossip.schedule if isinstance(strategy, MATCHA) else strategy.schedule
        degrees = [[schedule.at(r, members).degree(worker) for r in rounds] for worker in members]
        return tuple(sum(mix_bytes(nbytes, degree) for degree in own) / len(rounds) for own in degrees)
    return all_reduce_bytes(nbytes, workers)


class Flat(nn.Module):
    """N parameters in a few tensors."""

    def __init__(self, parameters: int) -> None:
        super().__init__()
        sizes = [len(part) for part in torch.empty(parameters).tensor_split(TENSORS)]
        self.tensors = nn.ParameterList([nn.Parameter(torch.ones(size)) for size in sizes])


def backward(model: nn.Module) -> float:
    """Gradients of half the squared norm."""
    for parameter in model.parameters():
        parameter.grad = parameter.detach().clone()
    return 1.0


def work(name: str, worker_id: int, workers: int, parameters: int) -> None:
    """One worker: reads a number of rounds per line, answers with the bytes that it counted."""
    torch.set_num_threads(1)
    store = TCPStore(SWITCH_ADDRESS, PORT, is_master=False)
    communicator = TorchCommunicator(store=store, worker_id=worker_id, workers=workers)
    model = Flat(parameters)
    sync = SyncOptimizer(
        torch.optim.SGD(model.parameters(), lr=1e-3),
        STRATEGIES[name],
        EverySteps(1),
        model=model,
        communicator=communicator,
        probe=backward,
        check_replicas_every=0,
    )
    for line in sys.stdin:
        before = communicator.bytes_sent
        for _ in range(int(line)):
            backward(model)
            sync.step(loss=float((worker_id - LEADER) % workers))
        print(json.dumps(communicator.bytes_sent - before), flush=True)


def measure(name: str, workers: int, parameters: int, rounds: int, rate_mbit: float) -> Sent:
    """One strategy on hosts of its own. The first round makes the connections and does not count."""
    with Hosts(workers, rate_mbit) as hosts:
        options: dict[str, Any] = dict(
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=1,
            env=os.environ | {"OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"},
        )
        store = [str(REPOSITORY / "tools" / "store.py"), "--host", SWITCH_ADDRESS, "--port", str(PORT)]
        server = hosts.run_on_switch([sys.executable, *store], **options)
        assert server.stdout is not None
        server.stdout.readline()  # it listens
        command = [sys.executable, __file__, "--strategies", name, "--workers", str(workers)]
        command += ["--parameters", str(parameters), "--work-as"]
        processes = [hosts.run(w, [*command, str(w)], **options) for w in range(workers)]
        _rounds(processes, 1)
        time.sleep(SETTLE_SECONDS)
        before = [hosts.bytes_sent(w) for w in range(workers)]
        counted = _rounds(processes, rounds)
        time.sleep(SETTLE_SECONDS)
        left = [hosts.bytes_sent(w) - count for w, count in enumerate(before)]
    expected = expected_bytes(STRATEGIES[name], parameters, workers, range(1, rounds + 1))
    return Sent(
        name,
        workers,
        4 * parameters,
        tuple(count / rounds for count in left),
        tuple(count / rounds for count in counted),
        tuple(float(count) for count in expected),
    )


def _rounds(processes: Sequence[subprocess.Popen[str]], rounds: int) -> list[int]:
    answers = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(f"{rounds}\n")
    for process in processes:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"a worker ended with status {process.wait()}; its error is above")
        answers.append(json.loads(line))
    return answers


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES), choices=list(STRATEGIES), metavar="NAME")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--parameters", type=int, default=1 << 20, help=f"a multiple of {UNIT} (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--rate-mbit", type=float, default=1000.0, help="of every link (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="JSON with every number")
    parser.add_argument("--work-as", type=int, metavar="WORKER_ID", help="be one of the workers; used by this script")
    arguments = parser.parse_args(argv)
    if arguments.work_as is not None:
        work(arguments.strategies[0], arguments.work_as, arguments.workers, arguments.parameters)
        return 0
    if arguments.parameters < UNIT or arguments.parameters % UNIT:
        parser.error(f"--parameters: {arguments.parameters} is no multiple of {UNIT}")
    require_root()
    print("in units of the parameters, per round        summed over workers              each worker")
    print("strategy       interfaces   formula   excess   counter   interface (formula)")
    found = []
    for name in arguments.strategies:
        sent = measure(name, arguments.workers, arguments.parameters, arguments.rounds, arguments.rate_mbit)
        found.append(sent)
        unit = sent.parameter_bytes
        pairs = zip(sent.by_interface, sent.expected, strict=True)
        print(
            f"{name:13}  {sum(sent.by_interface) / unit:10.4f}  {sum(sent.expected) / unit:8.4f}  {sent.excess:+7.2%}  "
            f"{'equal' if sent.by_counter == sent.expected else 'DIFFERS':7}   "
            + "  ".join(f"{left / unit:.3f} ({payload / unit:.3f})" for left, payload in pairs),
            flush=True,
        )
    if arguments.output is not None:
        arguments.output.write_text(json.dumps([asdict(sent) for sent in found], indent=1) + "\n")
    wrong = [sent.strategy for sent in found if not sent.is_as_expected]
    print(
        f"not as the formulas say: {', '.join(wrong)}" if wrong else f"all sums within {TOLERANCE:.0%}, counters equal"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
