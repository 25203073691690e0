"""PLY point-cloud files (ascii and binary), through plyfile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adperception.datasets.formats.optional import import_extra

__all__ = ["read_ply"]


def read_ply(path: str | Path) -> dict[str, NDArray[np.generic]]:
    """Columns of the element ``vertex`` by lower-case name, each ``(N,)`` in the file's own type.

    CloudCompare writes extra columns as ``scalar_Intensity``: the prefix is taken off. List properties are left out.

    Raises:
        ImportError: if plyfile is not installed.
        ValueError: for a damaged file or one without vertices.
    """
    plyfile = import_extra("plyfile", "pointfiles", ".ply clouds")
    try:
        data = plyfile.PlyData.read(str(path), mmap=False)
    except (plyfile.PlyParseError, ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a readable PLY file ({error}). Copy it again.") from error
    if "vertex" not in data:
        found = ", ".join(element.name for element in data.elements) or "no element"
        raise ValueError(f'{path}: a cloud needs the PLY element "vertex", but the file has {found}.')
    vertices = data["vertex"].data
    return {
        name.lower().removeprefix("scalar_"): vertices[name]
        for name in vertices.dtype.names
        if vertices.dtype[name].kind != "O"
    }
