"""Every GPU backend against the CPU: outputs and gradients of every layer kind (models: tests/test_zoo.py)."""

from __future__ import annotations

import copy

import pytest
import torch

from adperception.sparse import SparseConv3d, SparseConvolution, SparseTensor, SubMConv3d, use_backend

pytestmark = pytest.mark.gpu

LAYERS = {
    "submanifold 3": lambda: SubMConv3d(16, 32, 3, key="a"),
    "strided 3": lambda: SparseConv3d(16, 32, 3, 2, 1, key="a"),
    "strided 3, no padding in z": lambda: SparseConv3d(16, 32, 3, 2, (0, 1, 1), key="a"),
    "strided 3 1 1": lambda: SparseConv3d(16, 32, (3, 1, 1), (2, 1, 1), key="a"),
}


def relative_difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.cpu() - b.cpu()).abs().max() / b.abs().max())


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("backend", ["torch", "spconv", "triton"])
def test_layer_agrees_with_the_cpu(name: str, backend: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    if backend != "torch":
        pytest.importorskip(backend)
    torch.manual_seed(0)
    coordinates = (torch.rand(2, 9, 32, 32) < 0.2).nonzero().int()
    coordinates = coordinates[torch.randperm(len(coordinates))]
    features = torch.randn(len(coordinates), 16)
    layer: SparseConvolution = LAYERS[name]()
    results = []
    for device in ("cpu", "cuda"):
        with use_backend("torch" if device == "cpu" else backend):
            run = copy.deepcopy(layer).to(device)
            x = features.to(device).requires_grad_()
            dense = run(SparseTensor(x, coordinates.to(device), (9, 32, 32), 2)).dense()
            weights = torch.linspace(-1, 1, dense.numel(), device=device).view_as(dense)
            (dense * weights).sum().backward()
            results.append((dense.detach(), x.grad, run.weight.grad))
    for ours, reference in zip(results[1], results[0], strict=True):
        assert relative_difference(ours, reference) < 1e-5
