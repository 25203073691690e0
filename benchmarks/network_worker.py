"""One worker of ``network_time.py``: carries out the collectives that it reads as JSON lines, and says when."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import Store, TCPStore  # torch.distributed's own names for them are not typed


class Worker:
    """A rank of a gloo group whose store is elsewhere."""

    def __init__(self, rank: int, workers: int, store: Store) -> None:
        self.rank = rank
        self.workers = workers
        self.store = store
        dist.init_process_group("gloo", store=store, rank=rank, world_size=workers)

    def measure(self, collective: str, nbytes: int, repeats: int) -> list[tuple[float, float]]:
        """When each repetition began and ended, on the clock that all processes of the machine share."""
        run: Callable[[torch.Tensor], None] = getattr(self, collective)
        tensor = torch.ones(nbytes // 4)
        times = []
        for _ in range(repeats):
            dist.barrier()
            begin = time.monotonic()
            run(tensor)
            times.append((begin, time.monotonic()))
        dist.barrier()
        return times

    def all_reduce(self, tensor: torch.Tensor) -> None:
        dist.all_reduce(tensor)

    def broadcast(self, tensor: torch.Tensor) -> None:
        dist.broadcast(tensor, src=0)

    def mix(self, tensor: torch.Tensor) -> None:
        """With both neighbours on a ring; of two workers, each has the other once."""
        neighbours = sorted({(self.rank - 1) % self.workers, (self.rank + 1) % self.workers})
        received = [torch.empty_like(tensor) for _ in neighbours]
        exchanges = [dist.P2POp(dist.irecv, out, peer) for out, peer in zip(received, neighbours, strict=True)]
        exchanges += [dist.P2POp(dist.isend, tensor, peer) for peer in neighbours]
        for work in dist.batch_isend_irecv(exchanges):
            work.wait()

    def round_trip(self, tensor: torch.Tensor) -> None:
        """To the store and back."""
        self.store.add("round_trip", 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--store", required=True, metavar="ADDRESS:PORT")
    parser.add_argument("--serve", action="store_true", help="be the store instead")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    address, port = arguments.store.rsplit(":", 1)
    if arguments.serve:
        server = TCPStore(address, int(port), is_master=True, wait_for_workers=False)
        print(json.dumps("ready"), flush=True)
        sys.stdin.read()
        del server
        return
    worker = Worker(arguments.rank, arguments.workers, TCPStore(address, int(port), is_master=False))
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        command: dict[str, Any] = json.loads(line)
        print(json.dumps(worker.measure(**command)), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
