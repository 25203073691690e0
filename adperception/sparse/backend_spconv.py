"""The ``spconv`` backend: CUDA kernels of the spconv package (an extra), driven with our weights.

spconv's modules do the bookkeeping that its kernels need, so a layer keeps one as a runner and lends it its weight.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from adperception.sparse.rulebook import Kernel, Shape

__all__ = ["SpconvRunner"]


class SpconvRunner:
    """Runs one layer on spconv. Holds no parameters: they are lent per call.

    Args:
        in_channels: input channels.
        out_channels: output channels.
        kernel: extents, strides, paddings.
        submanifold: whether active sites stay as they are.
        key: layers with equal keys share spconv's index pairs.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: Kernel, *, submanifold: bool, key: str) -> None:
        import spconv.pytorch as spconv

        size, stride, padding = list(kernel.size), list(kernel.stride), list(kernel.padding)
        self._new_tensor = spconv.SparseConvTensor
        if submanifold:
            self._module = spconv.SubMConv3d(in_channels, out_channels, size, bias=False, indice_key=key)
        else:
            self._module = spconv.SparseConv3d(
                in_channels, out_channels, size, stride=stride, padding=padding, bias=False, indice_key=key
            )
        del self._module.weight

    def __call__(
        self,
        features: Tensor,
        coordinates: Tensor,
        shape: Shape,
        batch_size: int,
        weight: Tensor,
        index_pairs: dict[str, Any],
        *,
        training: bool,
    ) -> tuple[Tensor, Tensor, Shape]:
        """Convolve; returns output features, coordinates and grid. ``index_pairs`` is shared by descendants.

        spconv computes in float32 or float16: bfloat16 features, whose range float16 has not, are computed in float32.
        """
        given = features.dtype
        computed = torch.float32 if given == torch.bfloat16 else given
        module = self._module
        module.train(training)
        # A plain attribute: lent for this call, never registered, so never in a state dict twice.
        module.__dict__["weight"] = weight.to(computed)
        tensor = self._new_tensor(features.to(computed), coordinates.int().contiguous(), list(shape), batch_size)
        tensor.indice_dict = index_pairs
        try:
            # spconv's own autocast rule would choose float16 whatever the user's is.
            with torch.autocast(features.device.type, enabled=False):
                output = module(tensor)
        finally:
            del module.__dict__["weight"]
        depth, height, width = output.spatial_shape
        return output.features.to(given), output.indices, (int(depth), int(height), int(width))
