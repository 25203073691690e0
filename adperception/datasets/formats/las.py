"""LAS and LAZ point-cloud files, through laspy."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adperception.datasets.formats.optional import import_extra

__all__ = ["read_las"]


def read_las(path: str | Path) -> dict[str, NDArray[np.generic]]:
    """Columns of a LAS file by lower-case dimension name, each ``(N,)``; x, y, z in metres (scale and offset applied).

    Intensity is 0..65535 by the format's definition; many writers use 0..255.

    Raises:
        ImportError: if laspy is not installed, or for a ``.laz`` file without a decompressor.
        ValueError: for a damaged file.
    """
    path = Path(path)
    laspy = import_extra("laspy", "pointfiles", ".las clouds")
    if path.suffix.lower() == ".laz" and not laspy.LazBackend.detect_available():
        raise ImportError(f'{path}: laspy has no decompressor for .laz files: pip install "laspy[lazrs]"')
    try:
        with laspy.open(str(path)) as file:
            announced = file.header.point_count
            las = file.read()
    except (laspy.errors.LaspyException, ValueError, EOFError, struct.error) as error:
        raise ValueError(f"{path}: not a readable LAS file ({error}). Copy it again.") from error
    if len(las.points) != announced:
        raise ValueError(
            f"{path}: {len(las.points):,} points, but the header announces {announced:,}: the file was cut off. Copy "
            "it again."
        )
    columns = {name.lower(): np.asarray(las[name]) for name in las.point_format.dimension_names}
    return {**columns, "x": np.asarray(las.x), "y": np.asarray(las.y), "z": np.asarray(las.z)}
