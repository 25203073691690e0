"""Sparse 3D convolution layers with spconv's weight layout, on any backend."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from adperception.sparse import backend_torch
from adperception.sparse.backends import TRITON_MAX_TAPS, backend_for
from adperception.sparse.checks import check_devices
from adperception.sparse.precision import autocast_type, in_autocast_type
from adperception.sparse.rulebook import (
    Kernel,
    Rulebook,
    Shape,
    build_strided_rulebook,
    build_submanifold_rulebook,
)
from adperception.sparse.tensor import SparseTensor

if TYPE_CHECKING:  # needs Triton
    from adperception.sparse.triton_table import TapTable

__all__ = ["SparseConv3d", "SparseConvolution", "SparseSequential", "SubMConv3d", "name_layers"]


_Table = TypeVar("_Table", Rulebook, "TapTable")


def _triple(value: int | Sequence[int], what: str) -> Shape:
    values = (value,) * 3 if isinstance(value, int) else tuple(value)
    if len(values) != 3:
        raise ValueError(f"{what}={value!r}: give one integer or three (z, y, x).")
    return values[0], values[1], values[2]


class SparseConvolution(nn.Module, ABC):
    """What submanifold and strided convolutions share: weights, checks, choice of the backend.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel: extents, strides and paddings (z, y, x).
        bias: add a learned vector to every active site.
        key: layers with equal keys share one rulebook (they must see the same sites with the same kernel).

    Attributes:
        weight: ``(out, kz, ky, kx, in)`` (KRSC, as spconv >= 2.2 stores it); initialised as torch's Conv3d,
            uniform in +-1/sqrt(fan_in).
    """

    submanifold: bool

    def __init__(self, in_channels: int, out_channels: int, kernel: Kernel, *, bias: bool, key: str | None) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.kernel = in_channels, out_channels, kernel
        self.key = key
        self.layer_name = key or type(self).__name__
        self.weight = nn.Parameter(torch.empty(out_channels, *kernel.size, in_channels))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self._spconv: Any = None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights (and bias) from torch's global generator."""
        bound = 1.0 / math.sqrt(self.in_channels * self.kernel.volume)
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        """Sizes for ``print(model)``."""
        return f"{self.in_channels}, {self.out_channels}, {self.kernel}, key={self.key!r}"

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Convolve ``x`` (``in_channels`` channels)."""
        check_devices(self.layer_name, x.features, self.weight)
        if x.features.shape[1] != self.in_channels:
            raise ValueError(
                f'sparse_conv "{self.layer_name}": input has {x.features.shape[1]} channels, weights expect '
                f"{self.in_channels}."
            )
        backend = backend_for(x.features.device, autocast_type(x.features))
        if backend == "spconv" and len(x):
            return self._forward_spconv(x)
        if backend == "triton" and self.kernel.volume <= TRITON_MAX_TAPS:
            return self._forward_triton(x)
        rulebook = self._shared(x, x.cache.rulebooks, self._build_rulebook)
        features = backend_torch.sparse_convolution(in_autocast_type(x.features), self.weight, rulebook)
        return self._output(x, features, rulebook.coordinates, rulebook.spatial_shape)

    def _forward_spconv(self, x: SparseTensor) -> SparseTensor:
        if self._spconv is None:
            from adperception.sparse.backend_spconv import SpconvRunner

            self._spconv = SpconvRunner(
                self.in_channels, self.out_channels, self.kernel, submanifold=self.submanifold, key=self._cache_key(x)
            )
        features, coordinates, shape = self._spconv(
            in_autocast_type(x.features),
            x.coordinates,
            x.spatial_shape,
            x.batch_size,
            self.weight,
            x.cache.backend_state,
            training=self.training,
        )
        return self._output(x, features, coordinates, shape)

    def _forward_triton(self, x: SparseTensor) -> SparseTensor:
        from adperception.sparse import backend_triton

        table: TapTable = self._shared(x, x.cache.tables, self._build_table)
        features = backend_triton.sparse_convolution(in_autocast_type(x.features), self.weight, table)
        return self._output(x, features, table.coordinates, table.spatial_shape)

    def _build_table(self, x: SparseTensor) -> TapTable:
        from adperception.sparse import backend_triton

        return backend_triton.build_table(x, self.kernel, self.layer_name, submanifold=self.submanifold, key=self.key)

    def _output(self, x: SparseTensor, features: Tensor, coordinates: Tensor, shape: Shape) -> SparseTensor:
        if self.bias is not None:
            features = features + self.bias.to(features.dtype)
        return SparseTensor(features, coordinates, shape, x.batch_size, cache=x.cache)

    def _cache_key(self, x: SparseTensor) -> str:
        return self.key or f"{self.layer_name}@{id(self)}"

    def _shared(self, x: SparseTensor, known: dict[str, _Table], build: Callable[[SparseTensor], _Table]) -> _Table:
        """The rulebook or table of this layer's key, built by the first layer that asks for it."""
        key = self._cache_key(x)
        table = known.get(key)
        if table is None:
            table = known[key] = build(x)
        elif table.kernel != self.kernel or table.source is not x.coordinates:
            raise ValueError(
                f'sparse_conv "{self.layer_name}": key "{key}" belongs to a layer with kernel {table.kernel} on '
                f"{len(table.source)} sites; this layer has {self.kernel} on {len(x)} sites. "
                "Give layers on different sites different keys."
            )
        return table

    @abstractmethod
    def _build_rulebook(self, x: SparseTensor) -> Rulebook:
        """The rulebook of this layer on the sites of ``x``."""

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles leave the backend's runner behind; it is made anew where it is needed."""
        return {**self.__dict__, "_spconv": None}


class SubMConv3d(SparseConvolution):
    """Submanifold convolution: stride 1, centred, output sites are the input sites (Graham et al., CVPR 2018).

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: odd, one integer or three (z, y, x).
        bias: add a learned vector to every active site.
        key: layers with equal keys share one rulebook.
    """

    submanifold = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        *,
        bias: bool = False,
        key: str | None = None,
    ) -> None:
        size = _triple(kernel_size, "kernel_size")
        if any(k % 2 == 0 for k in size):
            raise ValueError(f"SubMConv3d: kernel_size {size} must be odd along every axis to have a centre.")
        super().__init__(in_channels, out_channels, Kernel(size), bias=bias, key=key)

    def _build_rulebook(self, x: SparseTensor) -> Rulebook:
        return build_submanifold_rulebook(x.coordinates, x.spatial_shape, self.kernel)


class SparseConv3d(SparseConvolution):
    """Strided sparse convolution: every output site that an active input site reaches becomes active.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: one integer or three (z, y, x).
        stride: likewise.
        padding: likewise, in cells.
        bias: add a learned vector to every active site.
        key: layers with equal keys share one rulebook.
    """

    submanifold = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        *,
        bias: bool = False,
        key: str | None = None,
    ) -> None:
        kernel = Kernel(_triple(kernel_size, "kernel_size"), _triple(stride, "stride"), _triple(padding, "padding"))
        super().__init__(in_channels, out_channels, kernel, bias=bias, key=key)

    def _build_rulebook(self, x: SparseTensor) -> Rulebook:
        return build_strided_rulebook(x.coordinates, x.spatial_shape, self.kernel, self.layer_name)


class SparseSequential(nn.Sequential):
    """A chain of layers: sparse ones get the tensor, ordinary ones (norms, activations) its features."""

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Run the chain."""
        for module in self:
            if isinstance(module, (SparseConvolution, SparseSequential)):
                x = module(x)
            else:
                x = x.replace_features(module(x.features))
        return x


def name_layers(module: nn.Module, prefix: str = "") -> None:
    """Give every sparse convolution below ``module`` its dotted name, so that errors can say which layer it was."""
    for name, child in module.named_modules():
        if isinstance(child, SparseConvolution):
            child.layer_name = f"{prefix}{name}"
