"""BEV maps of a folder of clouds, one file per cloud."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import nn

from adperception.datasets.folder import Folder
from adperception.structures import VoxelGrid

__all__ = ["DESCRIPTION_FILE", "Extraction", "extract_features"]

DESCRIPTION_FILE = "bev_features.json"
"""Name of the file that says what the maps are."""


@dataclass(frozen=True)
class Extraction:
    """What was done.

    Attributes:
        written: the files with maps.
        failures: names of the clouds without a map, each with the reason.
    """

    written: tuple[Path, ...]
    failures: dict[str, str]


def extract_features(
    model: nn.Module,
    clouds: Folder,
    out: str | Path,
    *,
    file_format: Literal["npy", "safetensors"] = "npy",
    precision: Literal["float32", "float16"] = "float32",
    progress: Callable[[str, tuple[str, ...]], None] | None = None,
) -> Extraction:
    """Write ``model.encode(cloud)`` for every cloud, and a description of the maps.

    Every map is ``(C, H, W)``, H along y and W along x; see ``bev_features.json`` beside them for the metres. A cloud
    that cannot be read or has no point in range is left out and reported; the others are written all the same.

    Args:
        model: a model with ``encode`` and ``grid``, on its device.
        clouds: the folder of clouds.
        out: where to write: ``a/000001.bin`` becomes ``a/000001.npy`` there.
        file_format: ``"npy"``, or ``"safetensors"`` with one tensor ``bev``.
        precision: type of the values on disk.
        progress: called after every cloud with its name and the reader's remarks.

    Raises:
        ValueError: for a model without ``encode``, or two clouds that would give the same file.
    """
    encode: Any = getattr(model, "encode", None)
    grid: Any = getattr(model, "grid", None)
    if encode is None or not isinstance(grid, VoxelGrid):
        raise ValueError(f"{type(model).__name__} has no BEV map to extract: it lacks encode(points) or grid.")
    targets = _targets(list(clouds.frame_ids), Path(out), file_format)
    written: list[Path] = []
    failures: dict[str, str] = {}
    shape: tuple[int, ...] = ()
    for index, name in enumerate(clouds.frame_ids):
        notes: tuple[str, ...] = ()
        try:
            frame = clouds.read(index)
            notes = frame.notes
            bev = encode(frame.cloud)[0].cpu().numpy().astype(precision)
        except (ValueError, OSError) as error:
            failures[name] = str(error)
        else:
            _write(targets[name], bev)
            written.append(targets[name])
            shape = bev.shape
        if progress is not None:
            progress(name, notes)
    if written:
        text = json.dumps(_description(grid, shape, precision), indent=2)
        (Path(out) / DESCRIPTION_FILE).write_text(text + "\n", encoding="utf-8")
    return Extraction(tuple(written), failures)


def _targets(names: list[str], out: Path, suffix: str) -> dict[str, Path]:
    targets: dict[str, Path] = {}
    taken: dict[Path, str] = {}
    for name in names:
        path = out / PurePosixPath(name).with_suffix(f".{suffix}")
        if path in taken:
            raise ValueError(f"{taken[path]} and {name} would both be written to {path}. Rename one of the two.")
        targets[name], taken[path] = path, name
    return targets


def _write(path: Path, bev: np.ndarray[Any, Any]) -> None:
    """Write under a temporary name first: an interrupted run leaves no half file that looks whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    if path.suffix == ".npy":
        with temporary.open("wb") as file:
            np.save(file, bev, allow_pickle=False)
    else:
        save_file({"bev": np.ascontiguousarray(bev)}, temporary)
    os.replace(temporary, path)  # noqa: PTH105  overwrites on every system


def _description(grid: VoxelGrid, shape: tuple[int, ...], precision: str) -> dict[str, Any]:
    x_min, y_min, _, x_max, y_max, _ = grid.point_cloud_range
    _, height, width = shape
    return {
        "shape": list(shape),
        "axes": ["channel", "y (left, increasing)", "x (forward, increasing)"],
        "dtype": precision,
        "frame": "LiDAR",
        "x_range_m": [x_min, x_max],
        "y_range_m": [y_min, y_max],
        "cell_size_m": [(x_max - x_min) / width, (y_max - y_min) / height],
        "torch": torch.__version__,
    }
