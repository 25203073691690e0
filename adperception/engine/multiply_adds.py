"""How many multiplications and additions a model's dense layers do for one frame.

A convolution or linear layer multiplies each of its weights once per output position (a transposed one once per input
position, as every input meets every weight once). That is what is counted, wherever it is called from and as often as
it is called; biases, norms, activations, pooling and products of activations (attention scores) are not. What holds
weights, took part and was not counted, sparse convolutions above all, is reported by name.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from adperception.models.base import TrainableModel
from adperception.models.radar.erase_net import ERASENet
from adperception.models.radar.view_segmentation import ViewSegmentation
from adperception.models.radar.window_gather import Windows
from adperception.structures import CARRADA_GRID, LidarFrame, PointCloud, VoxelGrid

__all__ = ["MultiplyAdds", "count_multiply_adds", "multiply_adds_of"]

_CONVOLUTIONS = {"conv1d", "conv2d", "conv3d"}
_TRANSPOSED = {"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}
_CHANNELS = ("x", "y", "z", "intensity", "elongation")
_POINTS = 4000


@dataclass(frozen=True)
class MultiplyAdds:
    """What was counted.

    Attributes:
        by_module: multiply-adds by the name of the module that did them, in the order of first use; ``""`` is the
            model itself.
        not_counted: modules that have weights and took part without a counted operation.
    """

    by_module: Mapping[str, int] = field(default_factory=dict)
    not_counted: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """Of all modules."""
        return sum(self.by_module.values())

    def by_part(self) -> dict[str, int]:
        """Summed over the direct children of the model."""
        parts: dict[str, int] = {}
        for name, count in self.by_module.items():
            part = name.partition(".")[0]
            parts[part] = parts.get(part, 0) + count
        return parts


class _Counter(TorchFunctionMode):
    """Sees every convolution and linear operation below the module level."""

    def __init__(self) -> None:
        super().__init__()
        self.running = [""]
        self.by_module: dict[str, int] = {}

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        result = function(*args, **named)
        kind = getattr(function, "__name__", "")
        if kind in _CONVOLUTIONS or kind in _TRANSPOSED or kind == "linear":
            values: Tensor = args[0] if args else named["input"]
            weight: Tensor = args[1] if len(args) > 1 else named["weight"]
            where = values if kind in _TRANSPOSED else result
            positions = where.numel() // weight.shape[0]
            name = self.running[-1]
            self.by_module[name] = self.by_module.get(name, 0) + positions * weight.numel()
        return result


def count_multiply_adds(model: nn.Module, run: Callable[[], object]) -> MultiplyAdds:
    """Count what ``run`` does with ``model``; it may do it on the meta device, where only shapes are computed.

    Args:
        model: gives the names.
        run: calls it, or some of its parts.
    """
    counter = _Counter()
    with _watched(model, counter) as took_part, torch.no_grad(), counter:
        run()
    missed = [name for name in took_part if name not in counter.by_module]
    return MultiplyAdds(counter.by_module, tuple(missed))


def multiply_adds_of(model: TrainableModel, cells: tuple[int, int, int] | None = None) -> dict[str, MultiplyAdds]:
    """Multiply-adds of a model for one frame (radar: with the frames before it), in evaluation mode.

    Radar models are counted on cubes of ``cells``, ERASE-Net with 0, 1 and 2 objects; LiDAR models on random points in
    their range, where every dense layer works on the whole grid whatever the points are.

    Args:
        model: any model of the zoo; it stays as it is.
        cells: range, azimuth and Doppler cells; by default those that the model was made for, or else CARRADA's.

    Returns:
        What was counted, by situation (``"2 objects"``; ``""`` where there is only one).

    Raises:
        ValueError: for ``cells`` that the model cannot take.
    """
    model = copy.deepcopy(model).eval()
    # Statistics that training would have given may be missing (NaN); they do not change what is counted.
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.nan_to_num_()
    if isinstance(model, ViewSegmentation):
        return {"": _count_views(model, cells or CARRADA_GRID.shape)}
    if isinstance(model, ERASENet):
        if cells not in (None, model.cube_shape):
            raise ValueError(f"this ERASENet was made for {model.cube_shape} cells, not {cells}. Set its cube_shape.")
        return {f"{n} object{'' if n == 1 else 's'}": _count_objects(model, n) for n in (0, 1, 2)}
    if cells is not None:
        raise ValueError(f"cells={cells} are of a radar cube, and {type(model).__name__} is no radar model.")
    return {"": _count_points(model)}


def _count_views(model: ViewSegmentation, cells: tuple[int, int, int]) -> MultiplyAdds:
    rows, azimuths, dopplers = cells
    if rows % 4 or azimuths % 4 or min(cells) < 1:
        raise ValueError(f"cells={cells}: {type(model).__name__} needs range and azimuth to be multiples of 4.")
    shapes = ((rows, dopplers), (rows, azimuths), (azimuths, dopplers))
    views = [torch.empty(1, model.moments, *shape, device="meta") for shape in shapes]
    model.to("meta")
    return count_multiply_adds(model, lambda: model.logits(*views))


def _count_objects(model: ERASENet, objects: int) -> MultiplyAdds:
    cubes = torch.zeros(1, model.moments, *model.cube_shape)
    middle = [torch.full((objects,), size // 2) for size in model.cube_shape]
    scores = torch.zeros(objects, len(model.class_names))
    windows = Windows(torch.zeros(objects, dtype=torch.int64), middle[0], middle[1], middle[2], scores)

    def run() -> None:
        model.detect_maps(cubes)
        if objects and model.segmenter is not None:
            model.segment(cubes, windows)

    return count_multiply_adds(model, run)


def _count_points(model: TrainableModel) -> MultiplyAdds:
    grid: VoxelGrid = model.grid  # type: ignore[assignment]
    channels: int = model.in_channels  # type: ignore[assignment]
    rng = np.random.default_rng(0)
    low, high = np.array(grid.point_cloud_range[:3]), np.array(grid.point_cloud_range[3:])
    points = rng.uniform(size=(_POINTS, channels)).astype(np.float32)
    points[:, :3] = low + points[:, :3] * (high - low)
    batch = model.collate(training=False)([LidarFrame("0", PointCloud(points, _CHANNELS[:channels]), None)])
    predict = getattr(model, "predict", None)
    if predict is None:  # a pre-training model: its forward pass is all there is
        return count_multiply_adds(model, lambda: model(batch, torch.Generator().manual_seed(0)))
    return count_multiply_adds(model, lambda: predict(batch))


@contextmanager
def _watched(model: nn.Module, counter: _Counter) -> Iterator[dict[str, None]]:
    """Tell ``counter`` which module is at work; collects those with weights of two or more axes, in order."""
    took_part: dict[str, None] = {}
    hooks = []

    def enter(name: str, has_weights: bool) -> Callable[..., None]:
        def note(*_: Any) -> None:
            counter.running.append(name)
            if has_weights:
                took_part[name] = None

        return note

    def leave(*_: Any) -> None:
        counter.running.pop()

    for name, module in model.named_modules():
        has_weights = any(p.dim() >= 2 for p in module.parameters(recurse=False))
        hooks.append(module.register_forward_pre_hook(enter(name, has_weights)))
        hooks.append(module.register_forward_hook(leave, always_call=True))
    try:
        yield took_part
    finally:
        for hook in hooks:
            hook.remove()
