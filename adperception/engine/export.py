"""A model as an ONNX file that is compared with torch before it counts: radar models whole, detectors' dense part."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from adperception.datasets.formats.optional import import_extra
from adperception.engine.dense_part import INPUT_NAME, DensePart
from adperception.engine.radar_graph import radar_graph

__all__ = ["Comparison", "ExportReport", "export_dense_part", "export_radar_model", "onnx_session", "run_onnx"]

TOLERANCE = 1e-4
"""Largest accepted difference between onnxruntime and torch, relative to each output's largest value."""

DIFFERENT_CLASSES = 1e-3
"""Largest accepted share of class labels that differ: where two classes are equally likely, either may win."""

EXAMPLES = 3
"""Generated frames that a radar model is compared on if no recorded ones are given."""


@dataclass(frozen=True)
class Comparison:
    """How well one output agrees.

    Attributes:
        shape: of the output.
        difference: largest difference between onnxruntime and torch.
        largest: largest value of torch.
        share: share of the values that differ at all.
        is_class: whether the values are classes, of which none is larger than another.
    """

    shape: tuple[int, ...]
    difference: float
    largest: float
    share: float
    is_class: bool

    @property
    def agrees(self) -> bool:
        """Whether the output is the same for all purposes."""
        return self.share <= DIFFERENT_CLASSES if self.is_class else self.difference <= TOLERANCE * self.largest

    def __str__(self) -> str:
        if self.is_class:
            return f"{100 * self.share:.2g} % of the classes differ between onnxruntime and torch"
        return f"onnxruntime differs from torch by at most {self.difference:.2g} (largest value {self.largest:.3g})"


@dataclass(frozen=True)
class ExportReport:
    """What was exported and how well it agrees.

    Attributes:
        path: the ONNX file.
        inputs: shapes of the inputs by name.
        outputs: comparison by name of the output.
        frames: how many inputs were compared.
        heading: what a person should know first.
        remark: and last.
    """

    path: Path
    inputs: Mapping[str, tuple[int, ...]]
    outputs: Mapping[str, Comparison]
    frames: int
    heading: str
    remark: str = ""

    def __str__(self) -> str:
        lines = [f"export: {self.heading}"]
        lines += [f"  {name} {found.shape}: {found}" for name, found in self.outputs.items()]
        return "\n".join([*lines, *([self.remark] if self.remark else [])])


def export_dense_part(model: nn.Module, path: str | Path) -> ExportReport:
    """Write the dense part of a detector as ONNX and compare it with torch on a random map.

    Args:
        model: a detector on the CPU; it is exported in evaluation mode and left in the mode it was in.
        path: the file to write; nothing is left there if the comparison fails.

    Raises:
        ImportError: if onnx, onnxscript or onnxruntime is not installed.
        ValueError: if the model has no dense part, or the outputs differ by more than ``TOLERANCE``.
    """
    was_training = model.training
    try:
        part = DensePart(model)
        outputs = _export(part, [(part.example(),)], (INPUT_NAME,), part.output_names, Path(path))
    finally:
        model.train(was_training)
    heading = (
        f'"{type(model).__name__.lower()}" contains {part.sparse_convolutions} sparse convolutions, which ONNX cannot '
        f"represent. Exported the dense part (BEV backbone + head) to {path}; input is {INPUT_NAME} "
        f"{part.input_shape}. See docs/export.md#sparse."
    )
    remark = ""
    if part.left_out:
        remark = (
            f"  not in the file: {', '.join(part.left_out)}. They work on points; what is exported finds the proposals."
        )
    return ExportReport(Path(path), {INPUT_NAME: part.input_shape}, outputs, 1, heading, remark)


def export_radar_model(
    model: nn.Module,
    path: str | Path,
    shape: tuple[int, int, int],
    frames: Sequence[tuple[Tensor, ...]] | None = None,
) -> ExportReport:
    """Write a whole radar model as ONNX, normalisation included, and compare it with torch.

    Args:
        model: a radar model on the CPU; it is exported in evaluation mode and left in the mode it was in.
        path: the file to write; nothing is left there if the comparison fails.
        shape: cells of a cube (range, azimuth, Doppler).
        frames: inputs of one frame each to compare on, see ``RadarGraph.inputs``; ``None``: generated ones.

    Raises:
        ImportError: if onnx, onnxscript or onnxruntime is not installed.
        ValueError: if the model cannot be exported, or the outputs differ.
    """
    graph = radar_graph(model)
    was_training = model.training
    model.eval()
    graph.eval()
    try:
        if frames is None:
            frames = [graph.example(shape, seed) for seed in range(EXAMPLES)]
        outputs = _export(graph, frames, graph.input_names, graph.output_names, Path(path))
    finally:
        model.train(was_training)
    inputs = {name: tuple(value.shape) for name, value in zip(graph.input_names, frames[0], strict=True)}
    listed = ", ".join(f"{name} {size}" for name, size in inputs.items())
    heading = (
        f"{type(model).__name__}, whole, to {path} ({Path(path).stat().st_size / 2**20:.1f} MiB); inputs are {listed}. "
        f"Compared on {len(frames)} frames:"
    )
    return ExportReport(Path(path), inputs, outputs, len(frames), heading)


def onnx_session(path: str | Path, threads: int = 0) -> Any:
    """An onnxruntime session on the CPU.

    Args:
        path: the ONNX file.
        threads: to compute with; 0: as many as onnxruntime thinks right.
    """
    onnxruntime = import_extra("onnxruntime", "export", "ONNX files")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run_onnx(session: Any, inputs: Sequence[Tensor]) -> list[NDArray[np.generic]]:
    """The outputs of an onnxruntime session."""
    names = [entry.name for entry in session.get_inputs()]
    found: list[NDArray[np.generic]] = session.run(
        None, {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
    )
    return found


def _export(
    module: nn.Module,
    frames: Sequence[tuple[Tensor, ...]],
    input_names: Sequence[str],
    output_names: Sequence[str],
    path: Path,
) -> dict[str, Comparison]:
    """Write a module in evaluation mode as ONNX; the file appears once onnxruntime agrees with torch."""
    for library in ("onnx", "onnxscript", "onnxruntime"):
        import_extra(library, "export", "ONNX export")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".partial")
    with _quiet_exporter():
        torch.onnx.export(
            module,
            frames[0],
            str(temporary),
            input_names=list(input_names),
            output_names=list(output_names),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    outputs = _compare(module, temporary, frames, output_names)
    wrong = {name: found for name, found in outputs.items() if not found.agrees}
    if wrong:
        temporary.unlink()
        raise ValueError(
            "export: onnxruntime gives other values than torch. "
            f"{'; '.join(f'{name}: {found}' for name, found in wrong.items())}. No file was written."
        )
    temporary.replace(path)
    return outputs


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


def _compare(
    module: nn.Module, path: Path, frames: Sequence[tuple[Tensor, ...]], names: Sequence[str]
) -> dict[str, Comparison]:
    """Run the file in onnxruntime on every frame."""
    session = onnx_session(path)
    ours: dict[str, list[NDArray[np.generic]]] = {name: [] for name in names}
    theirs: dict[str, list[NDArray[np.generic]]] = {name: [] for name in names}
    for frame in frames:
        with torch.no_grad():
            for name, value in zip(names, module(*frame), strict=True):
                ours[name].append(value.numpy())
        for name, output in zip(names, run_onnx(session, frame), strict=True):
            theirs[name].append(output)
    compared = {}
    for name in names:
        a, b = np.stack(ours[name]), np.stack(theirs[name])
        is_class = bool(np.issubdtype(a.dtype, np.integer))
        difference = np.abs(a.astype(np.float64) - b.astype(np.float64))
        compared[name] = Comparison(
            ours[name][0].shape,
            float(difference.max()),
            float(np.abs(a.astype(np.float64)).max()),
            float((difference > 0).mean()),
            is_class,
        )
    return compared
