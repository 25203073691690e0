from __future__ import annotations

import pytest
import torch

from adperception.optim.collectives import AllReduce, Broadcast, Mix, Request
from adperception.optim.request_checks import check_request

FLAT = torch.zeros(6)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (AllReduce(torch.zeros(2, 3)), r"AllReduce of worker 3 \(members 0, 3, 5\): needs flat contiguous"),
        (AllReduce(FLAT[::2]), "needs flat contiguous"),
        (Broadcast(torch.zeros(2, 3), 0), "needs flat contiguous"),
        (Broadcast(FLAT, 1), r"root=1 and the worker itself need to be in among=\(0, 3, 5\)"),
        (Broadcast(FLAT, 0, (0, 5)), "the worker itself"),
        (Broadcast(FLAT, 0, (3, 0)), "ascending"),
        (Broadcast(FLAT, 3, (3, 4)), "needs to be members"),
        (Mix(FLAT, torch.zeros(2, 3), 1.0), "needs flat contiguous"),
        (Mix(FLAT, torch.zeros(5), 1.0), r"out is torch.float32 \(5,\), source is torch.float32 \(6,\)"),
        (Mix(FLAT, FLAT.double(), 1.0), "out is torch.float64"),
        (Mix(FLAT, FLAT.clone(), 0.5, (3,), (0.5,)), "other members"),
        (Mix(FLAT, FLAT.clone(), 0.5, (0, 0), (0.2, 0.3)), "each once"),
        (Mix(FLAT, FLAT.clone(), 0.5, (4,), (0.5,)), r"neighbours=\(4,\)"),
        (Mix(FLAT, FLAT.clone(), 0.5, (0, 5), (0.5,)), "1 weights for 2 neighbours"),
        (Mix(FLAT, FLAT, 0.5), "out and source share memory"),
    ],
)
def test_refused(request_: Request, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_request(request_, 3, (0, 3, 5))


@pytest.mark.parametrize(
    "request_",
    [
        AllReduce(FLAT),
        Broadcast(FLAT, 5),
        Broadcast(FLAT, 5, (3, 5)),
        Mix(FLAT, FLAT.clone(), 1.0),
        Mix(FLAT, FLAT.clone(), 0.5, (5, 0), (0.3, 0.2)),
    ],
)
def test_fine(request_: Request) -> None:
    check_request(request_, 3, (0, 3, 5))
