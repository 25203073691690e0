"""What counts as a wait for the GPU, told on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adperception.engine.host_reads import HostReads, on_host

DEVICE = torch.device("cpu")
X = torch.arange(12.0).reshape(3, 4)
I = torch.tensor([2, 0])  # noqa: E741
MASK = X > 5


@pytest.mark.parametrize(
    ("action", "what"),
    [
        (lambda: X.sum().item(), "item"),
        (lambda: float(X.sum()), "item"),
        (lambda: int(X[0, 0]), "item"),
        (lambda: bool(MASK.any()), "item"),
        (lambda: f"{X.sum():.2f}", "item"),
        (lambda: 5 if MASK.all() else 6, "item"),
        (lambda: torch.zeros(I[0]), "item"),
        (lambda: torch.allclose(X, X + 1), "allclose"),
        (lambda: list(range(6))[I[0]], "item"),
        (lambda: X.tolist(), "tolist"),
        (lambda: X.numpy(), "numpy"),
        (lambda: np.asarray(X), "__array__"),
        (lambda: repr(X), "__repr__"),
        (lambda: X.cpu(), "copy to the host"),
        (lambda: X.to("cpu"), "copy to the host"),
        (lambda: X.cpu().sum().item(), "copy to the host"),
        (lambda: torch.equal(X, X.clone()), "equal"),
        (lambda: X.nonzero(), "nonzero"),
        (lambda: torch.where(MASK), "nonzero"),
        (lambda: X[MASK], "mask as index"),
        (lambda: X.clone().__setitem__(MASK, X.sum()), "mask as index"),
        (lambda: X.masked_select(MASK), "masked_select"),
        (lambda: X.clone().index_put_((MASK,), X.sum()), "mask as index"),
        (lambda: torch.unique(X), "_unique2"),
        (lambda: torch.unique(X, dim=0), "unique_dim"),
        (lambda: torch.unique_consecutive(X), "unique_consecutive"),
        (lambda: torch.bincount(I), "bincount"),
        (
            lambda: torch.repeat_interleave(X, torch.ones(3, dtype=torch.long, device=DEVICE), dim=0),
            "repeat_interleave",
        ),
        (lambda: torch.zeros(3).to(DEVICE), "copy to the device"),
        (lambda: torch.tensor([1.0, 2.0], device=DEVICE), "tensor of values on the host"),
        (lambda: X.new_tensor([1.0]), "new_tensor of values on the host"),
        (lambda: torch.tensor([X.sum()]), "tensor of a tensor on the device"),
        (lambda: X[[0, 1]], "index on the host"),
        (lambda: X[torch.tensor([0, 1])], "index on the host"),
        (lambda: X.clone().copy_(torch.zeros(3, 4)), "copy to the device"),
        (lambda: torch.zeros(3, 4).copy_(X), "copy to the host"),
        (lambda: X.clone().__setitem__(I, 0.5), "number copied to indexed places"),
        (lambda: F.one_hot(I), "one_hot without num_classes"),
    ],
)
def test_a_read_counts_once(action: Callable[[], Any], what: str) -> None:
    with HostReads(cuda=False) as reads:
        action()
    assert [place.partition(" in ")[0] for place in reads.places] == [what]
    assert "tests/engine/test_host_reads.py:" in reads.places[0]


@pytest.mark.parametrize(
    "action",
    [
        lambda: (X + 1).sum() * 2.0,
        lambda: X[I],
        lambda: X[1, 1:],
        lambda: X.clone().masked_fill_(MASK, 0.0),
        lambda: X.clone().__setitem__(MASK, 0.0),
        lambda: X.clone().__setitem__(I, X[I]),
        lambda: torch.where(MASK, X, 0.0),
        lambda: F.one_hot(I, 5),
        lambda: torch.repeat_interleave(X, I.new_ones(3), dim=0, output_size=3),
        lambda: X.to("cpu", non_blocking=True),
        lambda: torch.zeros(3).to(DEVICE, non_blocking=True),
        lambda: torch.zeros(3, 4, device=DEVICE) + X,
        lambda: X.to(torch.float64),
        lambda: X.clone().copy_(X),
        # On the host in any run.
        lambda: float(torch.rand(3, generator=torch.Generator().manual_seed(0)).sum() + 1),
        lambda: torch.tensor([1, 2]).tolist(),
        lambda: torch.from_numpy(np.arange(3)).cumsum(0).tolist(),
        lambda: torch.from_numpy(np.arange(3))[torch.tensor([True, False, True])],
        lambda: torch.zeros(3)[[0, 1]],
        lambda: nn.functional.normalize(torch.ones(3, 3)).nonzero(),
    ],
)
def test_what_does_not_wait(action: Callable[[], Any]) -> None:
    with HostReads(cuda=False) as reads:
        action()
    assert reads.places == []


def test_a_host_tensor_that_was_moved_stays_on_the_host() -> None:
    with HostReads(cuda=False) as reads:
        kept = torch.rand(3)
        moved = kept.to(DEVICE, non_blocking=True)
        float(kept.sum())
        assert reads.count == 0
        float(moved.sum())
        assert reads.count == 1
        assert torch.equal(kept, moved)  # the same numbers, and one more read


def test_the_backward_pass_is_seen() -> None:
    class Reading(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return gradient * float(gradient.max())

    weight = torch.ones(3, requires_grad=True)
    with HostReads(cuda=False) as reads:
        loss = Reading.apply(weight).sum()
        assert reads.count == 0
        loss.backward()
    assert reads.count == 1
    assert "(backward)" in reads.places[0]
    # The gradient of a selection by a mask needs the mask's size once more.
    with HostReads(cuda=False) as reads:
        loss = weight[weight > 0].sum()
        reads.clear()
        loss.backward()
    assert [place.partition(" in ")[0] for place in reads.places] == ["mask as index"]


def test_what_is_left_out() -> None:
    @on_host()
    def labels() -> int:
        return int(X.sum())

    with HostReads(cuda=False) as reads:
        labels()
        with on_host():
            made = X + 1
        made.tolist()
        assert reads.count == 0
    X.tolist()
    with HostReads(host=[X], cuda=False) as reads:
        (X * 2).tolist()
    assert reads.count == 0
    with HostReads(ignore=["test_host_reads.py"], cuda=False) as reads:
        X.tolist()
    assert reads.count == 0


def test_places_are_inside_the_package() -> None:
    from adperception.geometry.voxelization import Voxelizer
    from adperception.structures import VoxelGrid

    voxelizer, points = Voxelizer(VoxelGrid.create([0, 0, 0, 2, 2, 2], [1, 1, 1]), None, None), torch.ones(3, 4)
    with HostReads(cuda=False) as reads:
        voxelizer(points)
    assert reads.places
    assert all("in adperception/geometry/voxelization.py:" in place for place in reads.places)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_torch_reports_the_same_reads() -> None:
    x, indices = X.cuda(), I.cuda()
    actions: list[tuple[int, Callable[[], Any]]] = [
        (1, lambda: (x + 1).sum().item()),
        (0, lambda: x.clone().masked_fill_(x > 5, 0.0)),
        (0, lambda: x.clone().__setitem__(x > 5, 0.0)),
        (1, lambda: x[x > 5].sum()),
        (1, lambda: x.clone().__setitem__(indices, 0.5)),
        (1, lambda: torch.zeros(3).to(x.device)),
        (0, lambda: torch.zeros(3).to(x.device, non_blocking=True)),
        (1, lambda: x[torch.tensor([0, 1])]),
        (1, lambda: x.new_tensor([1.0])),
    ]
    for expected, action in actions:
        with HostReads() as reads:
            action()
        assert reads.count == expected, reads.places
