"""Labelled objects cut out of a dataset, for ground-truth sampling: three files that workers map into memory.

``index.json`` says what they were cut from; ``objects.npy`` has a record per object, ``points.npy`` the points of all
objects one after the other, relative to their box centres. No pickles; nothing is loaded before it is asked for.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from adperception.datasets.base import LidarDataset
from adperception.geometry import points_in_boxes

__all__ = ["ObjectDatabase", "build_object_database", "default_database_path", "describe_source"]

_VERSION = 1
_RECORD = np.dtype(
    [
        ("class_number", "<i4"),
        ("difficulty", "<i4"),
        ("box", "<f4", (7,)),
        ("first_point", "<i8"),
        ("num_points", "<i8"),
    ]
)


@dataclass
class ObjectDatabase:
    """Objects on disk, mapped into memory.

    Attributes:
        path: the folder of the three files.
        channels: channel names of the points.
        classes: class names; an object's ``class_number`` counts in them.
        source: what the database was built from (see ``describe_source``).
    """

    path: Path
    channels: tuple[str, ...]
    classes: tuple[str, ...]
    source: dict[str, Any]
    _maps: dict[str, NDArray[Any]] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, path: str | Path) -> ObjectDatabase:
        """The database in folder ``path``.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if its format has another version.
        """
        path = Path(path)
        index = path / "index.json"
        if not index.is_file():
            raise FileNotFoundError(f"object database: {index} does not exist.")
        values = json.loads(index.read_text(encoding="utf-8"))
        if values.get("version") != _VERSION:
            raise ValueError(
                f"object database: {index} has version {values.get('version')}, this package writes {_VERSION}. Delete "
                f"{path} and build it anew."
            )
        return cls(path, tuple(values["channels"]), tuple(values["classes"]), values["source"])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}  # a pickled memory map would carry its whole content

    def __len__(self) -> int:
        return len(self.objects)

    @property
    def objects(self) -> NDArray[Any]:
        """``(M,)`` records: class_number, difficulty (0, 1, 2 or -1), box ``(7,)``, first_point, num_points."""
        return self._map("objects.npy")

    def candidates(self, name: str, min_points: int) -> NDArray[np.int64]:
        """Positions of the objects of a class with enough points and a difficulty that is not -1."""
        if name not in self.classes:
            return np.zeros(0, dtype=np.int64)
        o = self.objects
        wanted = (o["class_number"] == self.classes.index(name)) & (o["num_points"] >= min_points)
        return np.flatnonzero(wanted & (o["difficulty"] != -1))

    def boxes(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """``(K, 7)`` boxes of objects, where they were recorded."""
        return np.asarray(self.objects["box"][positions], dtype=np.float32)

    def points(self, position: int) -> NDArray[np.float32]:
        """``(n, C)`` points of an object, x, y, z relative to its box centre (a copy)."""
        record = self.objects[position]
        first = int(record["first_point"])
        return np.array(self._map("points.npy")[first : first + int(record["num_points"])], dtype=np.float32)

    def _map(self, name: str) -> NDArray[Any]:
        if name not in self._maps:
            self._maps[name] = np.load(self.path / name, mmap_mode="r", allow_pickle=False)
        return self._maps[name]


def describe_source(dataset: LidarDataset) -> dict[str, Any]:
    """What decides the content of a database: the kind of frames, and which."""
    names = "\n".join(dataset.frame_ids)
    return {
        **dataset.variant(),
        "frames": len(dataset),
        "frames_sha256": hashlib.sha256(names.encode()).hexdigest(),
    }


def default_database_path(dataset: LidarDataset) -> Path:
    """Where the database of a dataset lies unless told otherwise; every subset has its own.

    Raises:
        ValueError: if the dataset has no ``root``.
    """
    root = getattr(dataset, "root", None)
    if root is None:
        raise ValueError(
            f"GroundTruthSampling: {type(dataset).__name__} has no root= to put the object database in. Name a folder "
            "with database=."
        )
    parts = [dataset.database_name()]
    if isinstance(dataset.split, str):
        parts.append(Path(dataset.split).stem)
    if not isinstance(dataset.split, str) or len(dataset) < dataset.split_size:
        parts.append(f"frames_{describe_source(dataset)['frames_sha256'][:8]}")
    return Path(root) / "_".join(parts)


def build_object_database(dataset: LidarDataset, path: str | Path) -> ObjectDatabase:
    """Cut the labelled objects with at least one point out of a dataset's clouds (see ``read_labelled``).

    Only the frames of ``dataset`` are read: a database of a subset knows no object of any other frame.

    Built in a temporary folder and renamed: two processes may build at once, and a broken-off build leaves nothing that
    could be taken for a database.

    Raises:
        ValueError: if the dataset has no labels or not one labelled object with points.
        OSError: if the folder cannot be written.
    """
    path = Path(path)
    if not dataset.labelled:
        raise ValueError(f"object database: {_place(dataset)} has no labels, so there are no objects to cut.")
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    scratch.mkdir()
    try:
        _write(dataset, scratch)
        try:
            scratch.replace(path)
        except OSError:
            if not (path / "index.json").is_file():  # not the other process' finished work: a real failure
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return ObjectDatabase.open(path)


def _write(dataset: LidarDataset, folder: Path) -> None:
    classes: list[str] = []
    records: list[tuple[int, int, NDArray[np.float32], int, int]] = []
    channels: tuple[str, ...] = ()
    total = 0
    with (folder / "points.npy").open("wb") as file:  # point by point: those of a large dataset fill a memory
        for index in tqdm(range(len(dataset)), desc="object database", unit="frame", disable=None):
            cloud, boxes, difficulties = dataset.read_labelled(index)
            if not channels:
                channels = cloud.channels
                _write_header(file, 0, len(channels))
            for name, box, difficulty, inside in zip(
                boxes.names, boxes.boxes, difficulties, points_in_boxes(cloud.xyz, boxes.boxes), strict=True
            ):
                own = cloud.points[inside]
                if not len(own):
                    continue
                own[:, :3] -= box[:3]
                if name not in classes:
                    classes.append(name)
                records.append((classes.index(name), int(difficulty), box, total, len(own)))
                file.write(own.astype("<f4", copy=False).tobytes())
                total += len(own)
        file.seek(0)
        _write_header(file, total, len(channels))
    if not records:
        raise ValueError(
            f"object database: no labelled box in {_place(dataset)} holds a point. Boxes and points are in different "
            "frames, or the boxes are empty: run the check of data_tools on it."
        )
    np.save(folder / "objects.npy", np.array([(c, d, b, f, n) for c, d, b, f, n in records], dtype=_RECORD))
    index_values = {
        "version": _VERSION,
        "channels": list(channels),
        "classes": classes,
        "source": describe_source(dataset),
    }
    (folder / "index.json").write_text(json.dumps(index_values, indent=2) + "\n", encoding="utf-8")


def _write_header(file: IO[bytes], rows: int, columns: int) -> None:
    """The header of an array that grows; numpy leaves room in it for a larger number of rows."""
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (rows, columns)})


def _place(dataset: LidarDataset) -> str:
    return str(getattr(dataset, "root", type(dataset).__name__))
