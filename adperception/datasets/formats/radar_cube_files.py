"""Radar cubes and masks in files of one's own: ``.npy`` or ``.h5`` cubes, ``.npz`` or ``.png`` masks."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
from numpy.typing import NDArray

from adperception.datasets.formats.npy_arrays import read_array
from adperception.datasets.formats.radar_sensor import RadarSensor
from adperception.structures import RadarMasks, flip_range_doppler_labels

__all__ = ["CUBE_SUFFIXES", "find_masks", "read_masks", "read_stored_cube"]

CUBE_SUFFIXES = (".npy", ".h5")
_VIEWS = {"range_doppler": ("range", "doppler"), "range_angle": ("range", "azimuth")}


def read_stored_cube(path: Path, sensor: RadarSensor) -> NDArray[np.float32]:
    """Magnitudes ``(range, azimuth, Doppler)`` in the package's order of a cube, complex or magnitudes, in any order.

    An ``.h5`` file must hold one dataset, or one that is called ``cube``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a damaged file, another shape, or values that no magnitude has (NaN, negative).
    """
    values = _h5(path) if path.suffix == ".h5" else read_array(path, kinds="cfiu")
    if values.shape != sensor.stored_shape:
        raise ValueError(
            f"{path}: shape {values.shape}, expected {sensor.stored_shape} ({', '.join(sensor.axes)}) by sensor.json. "
            "Correct grid or axes there; real and imaginary part must be one complex number."
        )
    magnitude = np.abs(values).astype(np.float32) if np.iscomplexobj(values) else values.astype(np.float32, copy=False)
    low, high = magnitude.min(), magnitude.max()  # NaN wins both
    if not (low >= 0 and high < np.inf):
        bad = int(np.count_nonzero(~(np.isfinite(magnitude) & (magnitude >= 0))))
        raise ValueError(
            f"{path}: {bad:,} of {magnitude.size:,} values are NaN, infinite or negative; cubes are complex amplitudes "
            "or magnitudes, not decibels. Make the file again, or take it out of its folder."
        )
    return np.ascontiguousarray(sensor.oriented(magnitude))


def find_masks(folder: Path, frame: str) -> list[Path]:
    """The file or the two pictures with the masks of a frame; empty if there is none."""
    archive = folder / f"{frame}.npz"
    if archive.is_file():
        return [archive]
    pictures = [folder / f"{frame}_{view}.png" for view in _VIEWS]
    return pictures if any(path.is_file() for path in pictures) else []


def read_masks(paths: Iterable[Path], sensor: RadarSensor, classes: int) -> RadarMasks:
    """Masks of a frame, stored with the axes of the cube (without the one that a view sums over).

    The range-Doppler mask is turned to row 0 near by ``flip_range_doppler_labels``, so that a model that turns it back
    finds it where the echo is.

    Args:
        paths: of ``find_masks``.
        sensor: how the cubes, and so the masks, are stored.
        classes: number of foreground classes.

    Raises:
        FileNotFoundError: if the picture of one view is missing.
        ValueError: for a damaged file, a missing view, another shape, or a class that does not exist.
    """
    stored: dict[str, tuple[Path, NDArray[Any]]] = {}
    for path in paths:
        stored |= _npz(path) if path.suffix == ".npz" else _png(path)
    masks = {}
    for view, axes in _VIEWS.items():
        path, values = stored[view]
        shape = sensor.stored_mask_shape(axes)
        if values.shape != shape:
            order = ", ".join(axis for axis in sensor.axes if axis in axes)
            raise ValueError(f"{path}: {view} has shape {values.shape}, expected {shape} ({order}) by sensor.json.")
        if values.dtype.kind not in "biu" or values.min() < 0 or values.max() > classes:
            raise ValueError(
                f"{path}: {view} holds {values.dtype} from {values.min()} to {values.max()}; classes are whole numbers "
                f"from 0 (background) to {classes}. Give all class_names=, or correct the mask."
            )
        masks[view] = np.ascontiguousarray(sensor.oriented(values.astype(np.uint8), axes))
    return RadarMasks(flip_range_doppler_labels(masks["range_doppler"]), masks["range_angle"])


def _h5(path: Path) -> NDArray[Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist.")
    try:
        with h5py.File(path) as file:
            names = [name for name, value in file.items() if isinstance(value, h5py.Dataset)]
            name = "cube" if "cube" in names else names[0] if len(names) == 1 else None
            if name is None:
                raise ValueError(f'{path}: holds {", ".join(names) or "no dataset"}; call the cube\'s dataset "cube".')
            values: NDArray[Any] = np.asarray(file[name])
    except OSError as error:
        raise ValueError(f"{path}: not a whole HDF5 file ({error}). It was cut short: copy it again.") from error
    if values.dtype.kind not in "cfiu":
        raise ValueError(f"{path}: {name} holds {values.dtype}, expected complex or real numbers.")
    return values


def _npz(path: Path) -> dict[str, tuple[Path, NDArray[Any]]]:
    try:
        with np.load(path) as archive:
            missing = [view for view in _VIEWS if view not in archive.files]
            if missing:
                raise ValueError(f"{path}: has no {' and no '.join(missing)}, only {', '.join(archive.files)}.")
            return {view: (path, archive[view]) for view in _VIEWS}
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a whole .npz file ({error}). It was cut short: copy it again.") from error


def _png(path: Path) -> dict[str, tuple[Path, NDArray[Any]]]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist, but the mask of the other view does. A frame needs both.")
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if picture is None:
        raise ValueError(f"{path}: not a whole PNG picture. Copy it again.")
    view = next(view for view in _VIEWS if path.stem.endswith(view))
    return {view: (path, picture)}
