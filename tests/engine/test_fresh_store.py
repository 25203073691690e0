from __future__ import annotations

import random
import threading
import time

import pytest
from torch import distributed as dist

from adperception.engine.fresh_store import fresh_store


def start(store: dist.Store, ranks: list[int], world_size: int, limit_seconds: float = 10.0) -> dict[int, str]:
    """Let ranks start at slightly different times; what a key of the store that each gets is called in the whole."""
    keys: dict[int, str] = {}

    def run(rank: int) -> None:
        time.sleep(random.Random(rank).uniform(0, 0.1))
        try:
            mine = fresh_store(store, rank, world_size, limit_seconds)
        except RuntimeError as error:
            keys[rank] = str(error)
        else:
            keys[rank] = mine.compare_set("life", "", f"first seen by {rank}").decode()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in ranks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return keys


def test_every_start_has_its_own_part_of_the_store() -> None:
    store = dist.HashStore()
    for world_size in (3, 3, 1, 4, 3):
        keys = start(store, list(range(world_size)), world_size)
        assert len(keys) == world_size
        # All see what the first of this start wrote, and it found nothing there.
        assert len(set(keys.values())) == 1
        assert keys[0].startswith("first seen by ")


def test_a_start_that_not_all_took_part_in_does_no_harm() -> None:
    """Whoever failed to come left its name of the start before, which must not be taken for it."""
    store = dist.HashStore()
    start(store, [0, 1, 2], 3)
    for missing in (0, 1):
        keys = start(store, [rank for rank in range(3) if rank != missing], 3, limit_seconds=0.5)
        assert all("not all of 3 processes came together within 0.5 s" in text for text in keys.values())
    assert len(set(start(store, [0, 1, 2], 3).values())) == 1


@pytest.mark.parametrize("late", [0, 2])
def test_a_late_one_is_waited_for(late: int) -> None:
    store = dist.HashStore()
    start(store, [0, 1, 2], 3)
    found: dict[int, str] = {}
    first = threading.Thread(target=lambda: found.update(start(store, [r for r in range(3) if r != late], 3)))
    first.start()
    time.sleep(0.4)
    found |= start(store, [late], 3)
    first.join()
    assert len(found) == 3
    assert len(set(found.values())) == 1
