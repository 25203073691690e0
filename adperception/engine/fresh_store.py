"""A store without what an earlier start of the same processes left in it.

torchrun keeps one store while it restarts a group (seen with torch 2.13), and process groups then read the addresses
of processes that are gone. Its count of restarts is no name for a start either: every agent has its own.
"""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING

from torch.distributed.distributed_c10d import PrefixStore

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

__all__ = ["fresh_store"]

_MISSING = "?"
_PAUSE_SECONDS = 0.01


def fresh_store(store: Store, rank: int, world_size: int, limit_seconds: float) -> PrefixStore:
    """A part of the store that belongs to this start of the processes alone. All of them call it.

    Every process draws a name for itself; the first one puts together what it sees, and begins again as long as one of
    the others does not find itself in it. What is left of another start can therefore not be taken for this one.

    Args:
        store: common to all starts.
        rank: of this process.
        world_size: number of processes.
        limit_seconds: how long to wait for the others.

    Raises:
        RuntimeError: not all processes are there in time.
    """
    own, start = uuid.uuid4().hex, time.monotonic()
    store.set(f"start/here/{rank}", own)
    while time.monotonic() - start < limit_seconds:
        if rank == 0:
            proposal = ",".join(_peek(store, f"start/here/{other}") for other in range(world_size))
            store.set("start/proposal", proposal)
        else:
            proposal = _peek(store, "start/proposal")
        names = proposal.split(",")
        if len(names) == world_size and names[rank] == own and _MISSING not in names:
            store.set(f"start/agreed/{rank}", proposal)
            if rank == 0 and all(_peek(store, f"start/agreed/{other}") == proposal for other in range(world_size)):
                store.set("start/done", proposal)
            if _peek(store, "start/done") == proposal:
                return PrefixStore(f"start/{names[0]}", store)
        time.sleep(_PAUSE_SECONDS)
    raise RuntimeError(f"process {rank}: not all of {world_size} processes came together within {limit_seconds:g} s")


def _peek(store: Store, key: str) -> str:
    """The value of a key, ``"?"`` if there is none; it does not wait."""
    value: str = store.compare_set(key, _MISSING, _MISSING).decode()
    return value
