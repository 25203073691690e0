"""Rounds in the background of the gradient, over rate-limited links: seconds per step apart, at once, without rounds.

One worker per host (``network_namespaces.py``) trains a flat model with ``EASGD(order="joint")`` (or DPSGD) and a round
in every step, which is the hardest case. A gradient is matrix products of about as long as a round takes. The three
ways take turns in the same processes. Needs root:
``sudo python benchmarks/communication_overlap.py [--workers 2] [--rate-mbit 200] [--output FILE]``
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from network_namespaces import SWITCH_ADDRESS, Hosts, require_root
from torch import nn
from torch._C._distributed_c10d import TCPStore  # torch.distributed's own name for it is not typed

from adperception.optim import DPSGD, EASGD, EverySteps, Strategy, SyncOptimizer
from adperception.optim.torch_communicator import TorchCommunicator

REPOSITORY = Path(__file__).resolve().parent.parent
PORT = 29500
STRATEGIES: dict[str, Strategy] = {"EASGD": EASGD(order="joint"), "DPSGD": DPSGD(order="joint")}
WAYS = ("no rounds", "apart", "at once")
BLOCK = 6  # steps of one way before the next


def work(arguments: argparse.Namespace) -> None:
    """One worker: seconds per step of each way, as JSON."""
    torch.set_num_threads(1)
    store = TCPStore(SWITCH_ADDRESS, PORT, is_master=False)
    ways: dict[str, tuple[nn.Parameter, SyncOptimizer]] = {}
    for way in WAYS:
        communicator = TorchCommunicator(
            store=store, worker_id=arguments.work_as, workers=arguments.workers, name=way.replace(" ", "_")
        )
        parameter = nn.Parameter(torch.ones(arguments.parameters))
        ways[way] = (
            parameter,
            SyncOptimizer(
                torch.optim.SGD([parameter], lr=1e-3),
                STRATEGIES[arguments.strategy],
                EverySteps(10**9 if way == "no rounds" else 1),
                communicator=communicator,
                overlap=way == "at once",
                check_replicas_every=0,
            ),
        )
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    products = _products_of(arguments.gradient_seconds)
    for _ in range(arguments.repetitions):
        for way, (parameter, sync) in ways.items():
            for step in range(BLOCK):
                start = time.perf_counter()
                _multiply(products)
                parameter.grad = parameter.detach().clone()
                sync.step(loss=0.0)
                if step > 1:  # the first round of a block has no gradient to hide behind
                    seconds[way].append(time.perf_counter() - start)
            sync.wait()
    print(json.dumps(seconds), flush=True)


def _multiply(products: int) -> None:
    x = torch.ones(256, 256)
    for _ in range(products):
        x = (x @ x).clamp_(max=1.0)


def _products_of(seconds: float) -> int:
    """How many matrix products take so long on this machine, undisturbed."""
    _multiply(20)
    start = time.perf_counter()
    _multiply(200)
    return max(1, round(200 * seconds / (time.perf_counter() - start)))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strategy", default="EASGD", choices=list(STRATEGIES))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--parameters", type=int, default=1 << 20)
    parser.add_argument("--rate-mbit", type=float, default=200.0, help="of every link (default: %(default)s)")
    parser.add_argument("--gradient-seconds", type=float, default=0.2, help="of computing per step")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--output", type=Path, help="JSON with every number")
    parser.add_argument("--work-as", type=int, metavar="WORKER_ID", help="be one of the workers; used by this script")
    arguments = parser.parse_args(argv)
    if arguments.work_as is not None:
        work(arguments)
        return 0
    require_root()
    with Hosts(arguments.workers, arguments.rate_mbit) as hosts:
        options: dict[str, Any] = dict(stdout=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"})
        store = [str(REPOSITORY / "tools" / "store.py"), "--host", SWITCH_ADDRESS, "--port", str(PORT)]
        server = hosts.run_on_switch([sys.executable, *store], **options)
        assert server.stdout is not None
        server.stdout.readline()  # it listens
        own = sys.argv[1:] if argv is None else list(argv)
        started = [
            hosts.run(w, [sys.executable, __file__, *own, "--work-as", str(w)], **options)
            for w in range(arguments.workers)
        ]
        found = [json.loads(process.communicate()[0]) for process in started]
    medians = {way: statistics.median(s for each in found for s in each[way]) for way in WAYS}
    for way in WAYS:
        print(f"{way:10} {medians[way]:.3f} s per step")
    hidden = (medians["apart"] - medians["at once"]) / (medians["apart"] - medians["no rounds"])
    print(f"{hidden:.0%} of the round's time is hidden behind the gradient")
    if arguments.output is not None:
        content = {"options": vars(arguments) | {"output": None}, "medians": medians, "seconds": found}
        arguments.output.write_text(json.dumps(content, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
