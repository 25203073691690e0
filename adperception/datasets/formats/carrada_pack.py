"""CARRADA sequences packed into one HDF5 file each: cubes, processed views and masks, a chunk per frame.

``SEQUENCE.h5`` holds ``frames`` (names), ``cubes`` (N, range, azimuth, Doppler), ``views/<view>`` and
``masks/<dense|sparse>/<view>`` (classes, uint8), so that a window of frames is one short read. Cubes are stored

- ``"lossless"``: as they are (float32), views too (float64); or
- ``"log_float16"``: as float16 of ``10 log10(X^2 + 1)``, views as float32. Float16 of X itself would overflow (|X|
  reaches 152,759). The largest error is written into the file, in decibels.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from adperception.datasets.formats.carrada import (
    LABELLED_VIEWS,
    cube_file,
    read_cube,
    read_view,
    view_file,
    view_shapes,
)
from adperception.datasets.formats.carrada_files import CarradaFiles
from adperception.structures import RadarGrid, RadarMasks, RadarViews

__all__ = [
    "LOG_FLOAT16_BOUND_DB",
    "CarradaPacks",
    "Coding",
    "Compression",
    "decode_log",
    "encode_log",
    "pack_coding",
    "pack_file",
    "pack_sequence",
]

Coding = Literal["lossless", "log_float16"]
Compression = Literal["none", "lzf", "gzip"]

LOG_FLOAT16_BOUND_DB = 2.0**-5
"""Largest rounding error of float16 below 128 dB: half of its step of 1/16 dB."""

_FORMAT = "adperception CARRADA sequence, version 1"


def pack_file(folder: Path, sequence: str) -> Path:
    """Path of a packed sequence."""
    return folder / f"{sequence}.h5"


def encode_log(magnitude: NDArray[np.float32]) -> NDArray[np.float16]:
    """Float16 of ``10 log10(X^2 + 1)``."""
    coded: NDArray[np.float16] = (10 * np.log10(np.square(magnitude, dtype=np.float64) + 1)).astype(np.float16)
    return coded


def decode_log(values: NDArray[np.float16]) -> NDArray[np.float32]:
    """Magnitudes of what ``encode_log`` made."""
    decoded: NDArray[np.float32] = np.take(_decoding_table(), values.view(np.uint16))
    return decoded


@functools.cache
def _decoding_table() -> NDArray[np.float32]:
    """The magnitude of each of the 65,536 float16 numbers: looking up is many times faster than powers of ten."""
    decibels = np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.sqrt(np.maximum(10 ** (decibels / 10) - 1, 0)).astype(np.float32)


def pack_sequence(
    files: CarradaFiles,
    folder: Path,
    sequence: str,
    frames: Sequence[str],
    coding: Coding = "lossless",
    compression: Compression = "none",
) -> float:
    """Pack the frames of a sequence, read every frame back and compare, then give the file its name.

    Nothing is left of a run that was stopped but a file that ends in ``.part``.

    Args:
        files: the loose tree; without ``rad_root`` no cubes are packed.
        folder: where ``SEQUENCE.h5`` goes.
        sequence: its name.
        frames: names of the frames in the order of time.
        coding: how cubes are stored.
        compression: filter of cubes and views: none, lzf (fast) or gzip (small), with byte shuffling.

    Returns:
        The largest error of ``10 log10(X^2 + 1)`` in decibels; 0 for lossless or without cubes.

    Raises:
        FileNotFoundError: for a missing file of a frame.
        ValueError: for a damaged one (NaN included), or if what was written does not read back.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = pack_file(folder, sequence)
    temporary = path.with_suffix(".h5.part")
    error = 0.0
    with h5py.File(temporary, "w") as file:
        file.attrs.update(
            {
                "format": _FORMAT,
                "sequence": sequence,
                "coding": coding,
                "grid": json.dumps(files.grid.to_dict()),
            }
        )
        file["frames"] = np.array([f.encode() for f in frames])
        writer = _Writer(file, files.grid, len(frames), coding, compression, cubes=files.rad_root is not None)
        for i, frame in enumerate(frames):
            error = max(error, writer.add(i, files, sequence, frame))
        file.attrs["max_error_db"] = error
        file.flush()
    with h5py.File(temporary, "r") as file:
        for i, frame in enumerate(frames):
            _verify(file, i, files, sequence, frame, error)
    temporary.replace(path)
    return error


def pack_coding(path: Path) -> str:
    """How the cubes of a packed sequence are coded.

    Raises:
        ValueError: for a damaged file, or one of another kind.
    """
    with _open_pack(path) as file:
        return str(file.attrs["coding"])


class _Writer:
    def __init__(
        self, file: Any, grid: RadarGrid, count: int, coding: Coding, compression: Compression, *, cubes: bool
    ) -> None:
        self.file, self.coding = file, coding
        packed = {} if compression == "none" else {"compression": compression, "shuffle": True}
        log = coding == "log_float16"

        def create(name: str, shape: tuple[int, ...], dtype: str, options: Mapping[str, Any]) -> None:
            file.create_dataset(name, (count, *shape), dtype, chunks=(1, *shape), **options)

        if cubes:
            create("cubes", grid.shape, "f2" if log else "f4", packed)
        for view, shape in view_shapes(grid).items():
            create(f"views/{view}", shape, "f4" if log else "f8", packed)
        for annotation in ("dense", "sparse"):
            for view in LABELLED_VIEWS:  # almost all background: compressed in any case, cheap to unpack
                create(f"masks/{annotation}/{view}", view_shapes(grid)[view], "u1", {"compression": "lzf"})

    def add(self, row: int, files: CarradaFiles, sequence: str, frame: str) -> float:
        """Write a frame; returns the error of its cube in decibels."""
        error = 0.0
        if "cubes" in self.file and files.rad_root is not None:
            cube = read_cube(cube_file(files.rad_root, sequence, frame), files.grid)
            if self.coding == "log_float16":
                coded = encode_log(cube)
                error = _error_db(cube, decode_log(coded))
                self.file["cubes"][row] = coded
            else:
                self.file["cubes"][row] = cube
        for view, shape in view_shapes(files.grid).items():
            self.file[f"views/{view}"][row] = read_view(
                view_file(files.root, sequence, view, "processed", frame), shape
            )
        for annotation in ("dense", "sparse"):
            masks = files.masks(sequence, annotation, frame)
            for view in LABELLED_VIEWS:
                self.file[f"masks/{annotation}/{view}"][row] = getattr(masks, view)
        return error


def _error_db(cube: NDArray[np.float32], decoded: NDArray[np.float32]) -> float:
    before, after = (10 * np.log10(np.square(x, dtype=np.float64) + 1) for x in (cube, decoded))
    return float(np.abs(before - after).max())


def _verify(file: Any, row: int, files: CarradaFiles, sequence: str, frame: str, error_db: float) -> None:
    """Compare a packed frame with its files."""
    same = True
    if "cubes" in file and files.rad_root is not None:
        cube = read_cube(cube_file(files.rad_root, sequence, frame), files.grid)
        stored = file["cubes"][row]
        if stored.dtype == np.float16:
            same &= _error_db(cube, decode_log(stored)) <= error_db
        else:
            same &= np.array_equal(stored, cube)
    for view, shape in view_shapes(files.grid).items():
        stored = file[f"views/{view}"][row]
        loose = read_view(view_file(files.root, sequence, view, "processed", frame), shape)
        same &= np.array_equal(stored, loose.astype(stored.dtype))
    for annotation in ("dense", "sparse"):
        masks = files.masks(sequence, annotation, frame)
        for view in LABELLED_VIEWS:
            same &= np.array_equal(file[f"masks/{annotation}/{view}"][row], getattr(masks, view))
    if not same:
        raise ValueError(
            f"{file.filename}: frame {frame} does not read back as it was written. Is the disk full or broken? The "
            "file keeps its name with .part; remove it and pack again."
        )


class CarradaPacks:
    """Packed sequences, read like ``CarradaFiles``. Files are opened once per process, when they are first needed.

    Args:
        folder: with the ``.h5`` files.
        grid: what the cells mean; must be that of the files.
    """

    def __init__(self, folder: Path, grid: RadarGrid) -> None:
        self.folder, self.grid = folder, grid
        self._open: dict[str, _Pack] = {}
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}

    def present(self, sequence: str, part: str) -> set[str]:
        """See ``CarradaStorage``."""
        pack = self._pack(sequence)
        name = part if part in ("cubes", "views") else f"masks/{part}"
        if name not in pack.file:
            raise FileNotFoundError(
                f"{pack.path}: was packed without {name}. Pack the sequence again (data_tools/carrada.py pack)."
            )
        return set(pack.rows)

    def cubes(self, sequence: str, frames: Sequence[str]) -> NDArray[np.float32]:
        """See ``CarradaStorage``; values were checked when they were packed.

        Raises:
            FileNotFoundError: for a sequence that is not packed.
            ValueError: for a frame that is not in the file, or a damaged file.
        """
        values = self._pack(sequence).read("cubes", frames)
        return decode_log(values) if values.dtype == np.float16 else values

    def views(self, sequence: str, frames: Sequence[str]) -> RadarViews:
        """See ``CarradaStorage``.

        Raises:
            FileNotFoundError: for a sequence that is not packed.
            ValueError: for a frame that is not in the file, or a damaged file.
        """
        pack = self._pack(sequence)
        return RadarViews(**{v: pack.read(f"views/{v}", frames, np.float32) for v in view_shapes(self.grid)})

    def masks(self, sequence: str, annotation: str, frame: str) -> RadarMasks:
        """See ``CarradaStorage``.

        Raises:
            FileNotFoundError: for a sequence that is not packed.
            ValueError: for a frame that is not in the file, or a damaged file.
        """
        pack = self._pack(sequence)
        return RadarMasks(**{v: pack.read(f"masks/{annotation}/{v}", [frame])[0] for v in LABELLED_VIEWS})

    def close(self) -> None:
        """Close the files of this process."""
        for pack in self._open.values():
            pack.file.close()
        self._open = {}

    def _pack(self, sequence: str) -> _Pack:
        if self._process != os.getpid():  # a forked data worker: handles of HDF5 must not be shared
            self._open, self._process = {}, os.getpid()
        if sequence not in self._open:
            self._open[sequence] = _Pack(pack_file(self.folder, sequence), self.grid)
        return self._open[sequence]


class _Pack:
    """An open file."""

    def __init__(self, path: Path, grid: RadarGrid) -> None:
        self.path, self.file = path, _open_pack(path)
        try:
            stored = RadarGrid(**json.loads(self.file.attrs["grid"]))
            self.rows = {name.decode(): row for row, name in enumerate(self.file["frames"][()])}
        except (OSError, KeyError) as error:
            raise ValueError(_damaged(path, error)) from error
        if stored != grid:
            raise ValueError(f"{path}: was packed with {stored}, the tree says {grid}. Pack it again.")
        self._parts: dict[str, Any] = {}

    def read(self, part: str, frames: Sequence[str], dtype: type[np.generic] | None = None) -> NDArray[Any]:
        """Rows of a part."""
        try:
            rows = [self.rows[frame] for frame in frames]
        except KeyError as error:
            raise ValueError(f"{self.path}: has no frame {error}. Pack the sequence again.") from error
        try:
            if part not in self._parts:
                self._parts[part] = self.file[part]
            dataset = self._parts[part]
            first, last = rows[0], rows[-1] + 1
            values: NDArray[Any]
            if rows == list(range(first, last)):
                values = np.empty((len(rows), *dataset.shape[1:]), dtype=dtype or dataset.dtype)
                dataset.read_direct(values, np.s_[first:last])
            else:
                values = np.stack([dataset[row] for row in rows]).astype(dtype or dataset.dtype, copy=False)
        except (OSError, KeyError) as error:
            raise ValueError(_damaged(self.path, error)) from error
        return values


def _open_pack(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist. Pack the sequence: data_tools/carrada.py pack.")
    try:
        # Chunks are read whole and once: a cache would only copy them.
        file = h5py.File(path, "r", rdcc_nbytes=0)
    except OSError as error:
        raise ValueError(_damaged(path, error)) from error
    if file.attrs.get("format") != _FORMAT:
        file.close()
        raise ValueError(f"{path}: is no packed sequence of this version. Pack it again.")
    return file


def _damaged(path: Path, error: Exception) -> str:
    return f"{path}: not a whole HDF5 file ({error}). It was cut short while it was written or copied: pack it again."
