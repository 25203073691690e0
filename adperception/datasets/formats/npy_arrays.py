"""Arrays in ``.npy`` files, checked on the way in; nothing is ever unpickled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

__all__ = ["NUMBERS", "read_array", "read_array_header", "read_array_into", "require_magnitudes"]

NUMBERS = "biuf"
"""Kinds of dtype that hold real numbers."""


def read_array(
    path: Path, shape: Sequence[int] | None = None, axes: str = "", kinds: str = NUMBERS, advice: str = ""
) -> NDArray[Any]:
    """The array in ``path``.

    Args:
        path: a ``.npy`` file.
        shape: what its shape must be; ``None`` takes any.
        axes: what the axes of ``shape`` are, for the message.
        kinds: kinds of dtype (``numpy.dtype.kind``) that are accepted.
        advice: what to do about a missing file, for the message.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a file that was cut short or is no ``.npy``, an array of objects, another dtype or shape.
    """
    try:
        with path.open("rb") as file:
            array: NDArray[Any] = npy_format.read_array(file, allow_pickle=False)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist. {advice or 'Copy it there.'}") from None
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(_unreadable(path, error)) from error
    _require(path, array.shape, array.dtype, shape, axes, kinds)
    return array


def read_array_into(path: Path, out: NDArray[Any], axes: str = "", kinds: str = NUMBERS, advice: str = "") -> None:
    """Read ``path`` into a contiguous array of its shape; of its dtype as well, without a copy in between.

    Raises:
        FileNotFoundError: as ``read_array``.
        ValueError: as ``read_array``.
    """
    try:
        with path.open("rb") as file:
            shape, fortran_order, dtype = _read_header(file)
            if (shape, dtype) == (out.shape, out.dtype) and not fortran_order and file.readinto(out.data) == out.nbytes:
                return
    except (ValueError, EOFError, OSError):
        pass  # said by read_array
    out[...] = read_array(path, out.shape, axes, kinds, advice)


def read_array_header(
    path: Path, shape: Sequence[int] | None = None, axes: str = "", kinds: str = NUMBERS
) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of the array in ``path`` without reading it; the file's size must fit them.

    Raises:
        FileNotFoundError: as ``read_array``.
        ValueError: as ``read_array``.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist. Copy it there.")
    try:
        with path.open("rb") as file:
            found, _, dtype = _read_header(file)
            values = path.stat().st_size - file.tell()
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(_unreadable(path, error)) from error
    _require(path, found, dtype, shape, axes, kinds)
    needed = int(np.prod(found)) * dtype.itemsize
    if values != needed:
        raise ValueError(
            f"{path}: holds {values:,} bytes of values, {found} of {dtype} needs {needed:,}. The file was cut short or "
            "overwritten: copy it again."
        )
    return found, dtype


def require_magnitudes(values: NDArray[Any], origin: str) -> None:
    """Refuse what no magnitude can be.

    Args:
        values: real numbers.
        origin: file, for the message.

    Raises:
        ValueError: if a value is not finite or negative.
    """
    low, high = values.min(), values.max()  # NaN wins both
    if not (low >= 0 and high < np.inf):
        bad = int(np.count_nonzero(~(np.isfinite(values) & (values >= 0))))
        raise ValueError(
            f"{origin}: {bad:,} of {values.size:,} values are NaN, infinite or negative; magnitudes are finite and at "
            "least 0. Make or copy the file again, or take the frame out of light_dataset_frame_oriented.json."
        )


def _read_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy_format.read_magic(file)
    read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
    header: tuple[tuple[int, ...], bool, np.dtype[Any]] = read(file)
    return header


def _unreadable(path: Path, error: Exception) -> str:
    if "Object arrays" in str(error):
        return (
            f"{path}: holds pickled objects, which are never loaded. Save plain numbers (numpy.save of a float array)."
        )
    return f"{path}: not a whole .npy array ({error}). The file was cut short or is something else: copy it again."


def _require(
    path: Path,
    found: tuple[int, ...],
    dtype: np.dtype[Any],
    shape: Sequence[int] | None,
    axes: str,
    kinds: str,
) -> None:
    if dtype.kind == "O":
        raise ValueError(_unreadable(path, ValueError("Object arrays")))
    if dtype.kind not in kinds:
        raise ValueError(f"{path}: holds {dtype}, expected numbers of kind {', '.join(kinds)} (numpy.dtype.kind).")
    if shape is not None and found != tuple(shape):
        named = f" {axes}" if axes else ""
        raise ValueError(
            f"{path}: shape {found}, expected{named} {tuple(shape)}. Check the order of the axes and sensor.json."
        )
