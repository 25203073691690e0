"""The dense part of a detector, 2D network and head: what can be exported of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adperception.models.base import DetectionModel
from adperception.sparse import SparseConv3d, SubMConv3d

__all__ = ["INPUT_NAME", "DensePart"]

INPUT_NAME = "bev_BCHW"


class DensePart(nn.Module):
    """What comes after the sparse encoder: a bird's-eye-view map to the head's raw outputs.

    Args:
        model: a detector with ``backbone_2d`` and ``dense_head``.

    Attributes:
        input_shape: of the map.
        output_names: names of the outputs, in order.
        sparse_convolutions: how many layers of the model come before.
        left_out: modules of a second stage, which come after.

    Raises:
        ValueError: if the model has no such parts.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        if not isinstance(model, DetectionModel) or not hasattr(model, "dense_head"):
            raise ValueError(
                f"export: {type(model).__name__} has no dense part (BEV backbone and head) to export; detectors have."
            )
        self.backbone_2d: nn.Module = model.backbone_2d  # type: ignore[assignment]
        self.dense_head: nn.Module = model.dense_head  # type: ignore[assignment]
        height, width = model.backbone_3d.bev_shape  # type: ignore[union-attr, misc]
        self.input_shape = (1, int(model.backbone_3d.bev_channels), int(height), int(width))  # type: ignore[union-attr, arg-type]
        self.sparse_convolutions = sum(isinstance(module, (SparseConv3d, SubMConv3d)) for module in model.modules())
        self.left_out = tuple(name for name in ("pfe", "point_head", "roi_head") if hasattr(model, name))
        self.eval()
        with torch.no_grad():
            sample = self.dense_head(self.backbone_2d(torch.zeros(self.input_shape)))
        self.output_names = tuple(sample._fields)

    def example(self) -> Tensor:
        """A map like a real one: not negative, mostly zero."""
        generator = torch.Generator().manual_seed(0)
        bev = torch.rand(self.input_shape, generator=generator)
        return bev * (torch.rand(self.input_shape, generator=generator) < 0.3)

    def forward(self, bev: Tensor) -> tuple[Tensor, ...]:
        """The head's outputs, in the order of ``output_names``."""
        return tuple(self.dense_head(self.backbone_2d(bev)))
