"""What the sparse-convolution benchmark runs: single layers and whole encoders, on a backend, in a precision.

Shape legend: N input sites, M output sites, K taps.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from gpu_timing import DTYPES
from torch import Tensor

from adperception.models.backbones.voxel_backbone_8x import VoxelBackBone8x
from adperception.sparse import SparseConvolution, SparseTensor, available_backends, use_backend
from adperception.sparse.precision import float32_precision, set_float32_precision
from adperception.sparse.tensor import RulebookCache
from adperception.structures import Voxels

__all__ = [
    "PASSES",
    "EncoderRun",
    "LayerCase",
    "LayerRun",
    "available_conditions",
    "layer_cases",
    "precision_of",
    "relative_errors",
    "roofline_seconds",
]

PASSES = ("forward", "input gradient", "weight gradient", "backward", "forward with rulebook")


def available_conditions(device: torch.device) -> list[tuple[str, str]]:
    """Backends that can be used on ``device`` with the precisions that each has."""
    precisions = {"spconv": ("float32", "tf32", "fp16"), "torch": ("float32", "tf32", "bf16", "fp16")}
    return [
        (backend, precision)
        for backend in available_backends(device)
        for precision in precisions.get(backend, tuple(DTYPES))
        if precision != "tf32" or device.type == "cuda"
    ]


@contextlib.contextmanager
def precision_of(backend: str, precision: str) -> Iterator[None]:
    """Select a backend, and whether float32 products may be rounded to TF32; everything is as before afterwards."""
    tf32 = precision == "tf32"
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32
    with contextlib.ExitStack() as stack:
        stack.callback(setattr, torch.backends.cuda.matmul, "allow_tf32", before)
        stack.enter_context(use_backend(backend))
        if backend == "triton":
            stack.callback(set_float32_precision, float32_precision())
            set_float32_precision(precision if precision.startswith("tf32") else "ieee")
        elif backend == "spconv":
            from spconv import constants

            # Read by spconv at every call; not in every release.
            stack.callback(setattr, constants, "SPCONV_ALLOW_TF32", getattr(constants, "SPCONV_ALLOW_TF32", False))
            constants.SPCONV_ALLOW_TF32 = tf32
        yield


@dataclass(frozen=True)
class LayerCase:
    """A kind of layer of an encoder, and the sites that it works on.

    Attributes:
        name: of the first layer of the kind, e.g. ``"conv2.0.0"``.
        layers: how many of its layers are of the kind.
        layer: float32 weights.
        coordinates: ``(N, 4)``.
        shape: input grid.
        batch_size: number of grids.
        outputs: M.
        pairs: of connected sites.
    """

    name: str
    layers: int
    layer: SparseConvolution
    coordinates: Tensor
    shape: tuple[int, int, int]
    batch_size: int
    outputs: int
    pairs: int

    @property
    def title(self) -> str:
        """``"conv2.0.0 16->32 3x3x3/2"``."""
        kernel = self.layer.kernel
        size = "x".join(map(str, kernel.size))
        stride = "" if kernel.stride == (1, 1, 1) else "/" + "x".join(map(str, kernel.stride))
        return f"{self.name} {self.layer.in_channels}->{self.layer.out_channels} {size}{stride}"

    @property
    def operations(self) -> int:
        """Multiplications and additions of one pass; every pass has equally many."""
        return 2 * self.pairs * self.layer.in_channels * self.layer.out_channels

    def traffic(self, item_bytes: int) -> int:
        """Bytes that a pass must move at least: features of both sides, weights, and two int32 per pair."""
        layer = self.layer
        rows = len(self.coordinates) * layer.in_channels + self.outputs * layer.out_channels
        return item_bytes * (rows + layer.weight.numel()) + 8 * self.pairs


def roofline_seconds(case: LayerCase, precision: str, roofs: dict[str, float]) -> float:
    """The least time of a pass with the measured bandwidth and product rate of the device."""
    item_bytes = torch.empty((), dtype=DTYPES[precision]).element_size()
    memory = case.traffic(item_bytes) / roofs["copy_bytes_per_second"]
    return max(memory, case.operations / roofs[f"{precision}_operations_per_second"])


def layer_cases(encoder: VoxelBackBone8x, voxels: Voxels) -> list[LayerCase]:
    """The kinds of layers of an encoder on the sites that these voxels give."""
    seen: dict[tuple[Any, ...], list[Any]] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(layer: SparseConvolution, inputs: tuple[SparseTensor], output: SparseTensor) -> None:
            (x,) = inputs
            kind = (layer.in_channels, layer.out_channels, layer.kernel, layer.submanifold, x.spatial_shape, len(x))
            if kind in seen:
                seen[kind][1] += 1
                return
            plain = copy.deepcopy(layer)
            plain.bias = None  # costs one addition, and the same one on every backend
            pairs = x.cache.rulebooks[layer.key or ""].pair_count
            seen[kind] = [name, 1, plain, x.coordinates, x.spatial_shape, x.batch_size, len(output), pairs]

        return hook

    hooks = [
        module.register_forward_hook(note(name))
        for name, module in encoder.named_modules()
        if isinstance(module, SparseConvolution)
    ]
    try:
        with torch.no_grad(), use_backend("torch"):
            encoder(voxels)
    finally:
        for hook in hooks:
            hook.remove()
    return [LayerCase(*values) for values in seen.values()]


class LayerRun:
    """One layer on one backend in one precision, with random input rounded to it.

    Args:
        case: the layer.
        backend: name of the backend.
        precision: key of ``DTYPES``.
        seed: of input and gradient.
    """

    def __init__(self, case: LayerCase, backend: str, precision: str, seed: int = 0) -> None:
        self.case, self.backend, self.precision = case, backend, precision
        device, dtype = case.coordinates.device, DTYPES[precision]
        generator = torch.Generator(device).manual_seed(seed)

        def draw(rows: int, channels: int) -> Tensor:
            return torch.randn(rows, channels, device=device, generator=generator).to(dtype)

        self.layer = copy.deepcopy(case.layer).to(device, dtype).train()
        self.features = draw(len(case.coordinates), case.layer.in_channels)
        self.gradient = draw(case.outputs, case.layer.out_channels)
        self._cache = RulebookCache()
        self._graphs: dict[str, tuple[Tensor, list[Tensor]]] = {}

    @property
    def passes(self) -> tuple[str, ...]:
        """What can be timed: spconv cannot take up the rulebook of a strided layer again."""
        if self.backend == "spconv" and not self.case.layer.submanifold:
            return tuple(name for name in PASSES if name != "forward")
        return PASSES

    def _convolve(self, features: Tensor, *, fresh: bool = False) -> SparseTensor:
        case = self.case
        cache = RulebookCache() if fresh or "forward" not in self.passes else self._cache
        x = SparseTensor(features, case.coordinates, case.shape, case.batch_size, cache=cache)
        return self.layer(x)  # type: ignore[no-any-return]

    def _graph(self, which: str) -> tuple[Tensor, list[Tensor]]:
        if which not in self._graphs:
            features = self.features.clone().requires_grad_(which != "weight gradient")
            self.layer.weight.requires_grad_(which != "input gradient")
            output = self._convolve(features).features
            wanted = [t for t in (features, self.layer.weight) if t.requires_grad]
            self._graphs[which] = output, wanted
        return self._graphs[which]

    def run(self, which: str) -> object:
        """One of ``PASSES``; the rulebook is kept from call to call in all but the last."""
        if which.startswith("forward"):
            with torch.no_grad():
                return self._convolve(self.features, fresh=which == "forward with rulebook").features
        output, wanted = self._graph(which)
        return torch.autograd.grad(output, wanted, self.gradient, retain_graph=True)

    def results(self) -> tuple[Tensor, Tensor, Tensor]:
        """Output, input gradient and weight gradient; rows in the order of the output sites' cells.

        The gradient of the output belongs to cells, so that backends which order sites differently agree.
        """
        features = self.features.clone().requires_grad_()
        self.layer.weight.requires_grad_(True)
        output = self._convolve(features, fresh=True)
        order = _cell_order(output)
        rows = output.features.index_select(0, order)
        grads = torch.autograd.grad(rows, [features, self.layer.weight], self.gradient)
        return rows.detach(), grads[0], grads[1]

    def exact(self) -> tuple[Tensor, Tensor, Tensor]:
        """The same in float64 with the ``torch`` backend, from the same rounded input."""
        twin = copy.copy(self)
        twin.layer = copy.deepcopy(self.layer).double()
        twin.features, twin.gradient = self.features.double(), self.gradient.double()
        with use_backend("torch"):
            return twin.results()


def _cell_order(x: SparseTensor) -> Tensor:
    depth, height, width = x.spatial_shape
    batch, z, y, cell = x.coordinates.long().unbind(1)
    return torch.argsort(((batch * depth + z) * height + y) * width + cell)


def relative_errors(run: LayerRun) -> tuple[float, float, float]:
    """max|a - b| / max|b| of output, input gradient and weight gradient against float64."""
    errors = [
        float((ours.double() - exact).abs().max() / exact.abs().max())
        for ours, exact in zip(run.results(), run.exact(), strict=True)
    ]
    return errors[0], errors[1], errors[2]


class EncoderRun:
    """A whole encoder on one backend in one precision: rulebooks and the dense map included.

    Weights of convolutions are kept in the precision, norms in float32, the same for every backend.

    Args:
        encoder: float32 weights; it stays as it is.
        voxels: a batch on the device.
        precision: key of ``DTYPES``.
    """

    def __init__(self, encoder: VoxelBackBone8x, voxels: Voxels, precision: str) -> None:
        dtype = DTYPES[precision]
        self.encoder = copy.deepcopy(encoder).train()
        for module in self.encoder.modules():
            if isinstance(module, SparseConvolution):
                module.to(dtype)
        self.voxels = Voxels(voxels.features.to(dtype), voxels.coordinates, voxels.batch_size)
        self._gradient: Tensor | None = None

    def forward(self) -> Tensor:
        """A forward pass without gradients."""
        with torch.no_grad():
            return self.encoder(self.voxels)  # type: ignore[no-any-return]

    def train(self) -> None:
        """A forward and a backward pass."""
        for parameter in self.encoder.parameters():
            parameter.grad = None
        bev = self.encoder(self.voxels)
        if self._gradient is None:
            self._gradient = torch.randn_like(bev)
        bev.backward(self._gradient)
