"""Eight-bit arithmetic for an exported network: static quantisation by onnxruntime.

Weights and activations of the network's convolutions and linear layers, and of what lies between them, become eight-bit
integers; calibration frames show in which ranges. Input, normalisation and everything that decides about places stay
32-bit floats: a radar's power spans ten orders of magnitude.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["quantize_onnx"]

_LAYERS = ("Conv", "Gemm", "MatMul")
_BETWEEN = ("Concat", "LeakyRelu", "MaxPool", "Relu", "Resize")
NETWORK = "model."
"""Names of the network's weights in a file begin like this; other convolutions there are no layers."""


def quantize_onnx(
    path: str | Path, result: str | Path, calibration: Iterable[Mapping[str, NDArray[np.generic]]]
) -> tuple[int, int]:
    """Write an eight-bit version of an ONNX file (quantise and dequantise pairs, a scale per output channel).

    Args:
        path: a radar model's file that ``tools/export.py`` wrote.
        result: the file to write.
        calibration: inputs by name, of frames that show what is usual.

    Returns:
        How many layers are eight-bit, and how many there are.

    Raises:
        ImportError: if onnx or onnxruntime is not installed.
        ValueError: if the file holds no layer that can be quantised.
    """
    try:
        import onnx
        from onnxruntime import quantization
    except ModuleNotFoundError as error:
        raise ImportError(
            f'quantisation needs {error.name}, which is not installed: pip install "adperception[export]"'
        ) from error
    graph = onnx.load(str(path)).graph
    layers = [n for n in graph.node if n.op_type in _LAYERS and any(i.startswith(NETWORK) for i in n.input)]
    if not layers:
        raise ValueError(f"{path}: holds no convolution or linear layer of a radar network that could be quantised.")
    nodes = [node.name for node in (*layers, *_between(graph, layers))]
    with _quiet():
        quantization.quantize_static(
            str(path),
            str(result),
            _Reader(calibration),
            quant_format=quantization.QuantFormat.QDQ,
            nodes_to_quantize=nodes,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
    total = sum(
        n.op_type in (*_LAYERS, "ConvTranspose") and any(i.startswith(NETWORK) for i in n.input) for n in graph.node
    )
    return len(layers), total


def _between(graph: Any, layers: list[Any]) -> list[Any]:
    """Nodes without weights whose input comes from a layer and whose output goes to one."""
    behind: set[str] = set()
    before: set[str] = set()
    names = {node.name for node in layers}
    for node in graph.node:  # in the order of computation
        if node.name in names or behind.intersection(node.input):
            behind.update(node.output)
    for node in reversed(graph.node):
        if node.name in names or before.intersection(node.output):
            before.update(node.input)
    return [
        node
        for node in graph.node
        if node.op_type in _BETWEEN and behind.intersection(node.input) and before.intersection(node.output)
    ]


class _Reader:
    """What onnxruntime asks for calibration frames."""

    def __init__(self, frames: Iterable[Mapping[str, NDArray[np.generic]]]) -> None:
        self._frames = iter(frames)

    def get_next(self) -> Mapping[str, NDArray[np.generic]] | None:
        """The inputs of the next frame; ``None`` after the last."""
        return next(self._frames, None)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the advice to optimise the file first: that would merge paddings which must not be (docs/export.md)."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
