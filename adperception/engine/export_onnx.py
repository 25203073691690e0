"""The dense part of a detector, 2D network and head, as an ONNX file that is compared with torch before it counts."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from adperception.datasets.formats.optional import import_extra
from adperception.models.base import DetectionModel
from adperception.sparse import SparseConv3d, SubMConv3d

__all__ = ["INPUT_NAME", "DensePart", "ExportReport", "export_dense_part"]

INPUT_NAME = "bev_BCHW"
TOLERANCE = 1e-4
"""Largest accepted difference between onnxruntime and torch, relative to each output's largest value."""


class DensePart(nn.Module):
    """What comes after the sparse encoder: a bird's-eye-view map to the head's raw outputs.

    Args:
        model: a detector with ``backbone_2d`` and ``dense_head``.

    Attributes:
        output_names: names of the outputs, in order.

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
        with torch.no_grad():
            sample = self.dense_head(self.backbone_2d(torch.zeros(self.input_shape)))
        self.output_names = tuple(sample._fields)

    def forward(self, bev: Tensor) -> tuple[Tensor, ...]:
        """The head's outputs, in the order of ``output_names``."""
        return tuple(self.dense_head(self.backbone_2d(bev)))


@dataclass(frozen=True)
class ExportReport:
    """What was exported and how well it agrees.

    Attributes:
        path: the ONNX file.
        input_shape: of the one input, ``bev_BCHW``.
        output_shapes: by name.
        differences: per output, the largest difference between onnxruntime and torch and the largest value of torch.
        sparse_convolutions: how many layers of the model the file does not hold.
        left_out: modules of a second stage, which the file does not hold either.
    """

    path: Path
    input_shape: tuple[int, ...]
    output_shapes: dict[str, tuple[int, ...]]
    differences: dict[str, tuple[float, float]]
    sparse_convolutions: int
    left_out: tuple[str, ...] = ()

    def text(self, name: str) -> str:
        """What a person should know, for a model called ``name``."""
        lines = [
            f'export: "{name}" contains {self.sparse_convolutions} sparse convolutions, which ONNX cannot represent. '
            f"Exported the dense part (BEV backbone + head) to {self.path}; input is {INPUT_NAME} {self.input_shape}. "
            "See docs/export.md#sparse."
        ]
        for output, (difference, largest) in self.differences.items():
            lines.append(
                f"  {output} {self.output_shapes[output]}: onnxruntime differs from torch by at most {difference:.2g} "
                f"(largest value {largest:.3g})"
            )
        if self.left_out:
            lines.append(
                f"  not in the file: {', '.join(self.left_out)}. They work on points; what is exported finds the "
                "proposals."
            )
        return "\n".join(lines)


def export_dense_part(model: nn.Module, path: str | Path) -> ExportReport:
    """Write the dense part of a detector as ONNX and compare it with torch on a random map.

    Args:
        model: a detector on the CPU; it is exported in evaluation mode and left in the mode it was in.
        path: the file to write; nothing is left there if the comparison fails.

    Raises:
        ImportError: if onnx, onnxscript or onnxruntime is not installed.
        ValueError: if the model has no dense part, or the outputs differ by more than ``TOLERANCE``.
    """
    for library in ("onnx", "onnxscript", "onnxruntime"):
        import_extra(library, "export", "ONNX export")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    was_training = model.training
    model.eval()
    try:
        part = DensePart(model).eval()
        # Like a real map: not negative, mostly zero.
        generator = torch.Generator().manual_seed(0)
        bev = torch.rand(part.input_shape, generator=generator)
        bev = bev * (torch.rand(part.input_shape, generator=generator) < 0.3)
        temporary = path.with_name(path.name + ".partial")
        with _quiet_exporter():
            torch.onnx.export(
                part,
                (bev,),
                str(temporary),
                input_names=[INPUT_NAME],
                output_names=list(part.output_names),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        with torch.no_grad():
            expected = [output.numpy() for output in part(bev)]
    finally:
        model.train(was_training)
    differences = _compare(temporary, bev.numpy(), dict(zip(part.output_names, expected, strict=True)))
    wrong = [name for name, (difference, largest) in differences.items() if not difference <= TOLERANCE * largest]
    if wrong:
        temporary.unlink()
        raise ValueError(
            f"export: onnxruntime gives other values than torch for {', '.join(wrong)}: "
            f"{', '.join(f'{differences[n][0]:.2g} of {differences[n][1]:.2g}' for n in wrong)}. No file was written."
        )
    temporary.replace(path)
    sparse = sum(isinstance(module, (SparseConv3d, SubMConv3d)) for module in model.modules())
    shapes = {name: tuple(value.shape) for name, value in zip(part.output_names, expected, strict=True)}
    left_out = tuple(name for name in ("pfe", "point_head", "roi_head") if hasattr(model, name))
    return ExportReport(path, part.input_shape, shapes, differences, sparse, left_out)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Without torch's remarks about libraries that are not installed and about its own future."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _compare(path: Path, bev: np.ndarray, expected: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """Run the file in onnxruntime; per output the largest difference and torch's largest value."""
    onnxruntime = import_extra("onnxruntime", "export", "ONNX export")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    found = session.run(list(expected), {INPUT_NAME: bev})
    return {
        name: (float(np.abs(ours - theirs).max()), float(np.abs(ours).max()))
        for (name, ours), theirs in zip(expected.items(), found, strict=True)
    }
