"""Labelled objects cut out of a dataset, for ground-truth sampling: three files that workers map into memory.

``index.json`` says what they were cut from; ``objects.npy`` has a record per object, ``points.npy`` the points of all
objects one after the other, relative to their box centres. No pickles; nothing is loaded before it is asked for.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from adperception.datasets.formats.kitti_boxes import from_kitti_camera
from adperception.datasets.formats.kitti_label import DONT_CARE
from adperception.geometry import points_in_boxes
from adperception.structures import PointCloud

if TYPE_CHECKING:
    from adperception.datasets.kitti import KITTI

__all__ = ["ObjectDatabase", "build_object_database", "describe_source"]

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


def describe_source(dataset: KITTI) -> dict[str, Any]:
    """What decides the content of a database: tree, folder of clouds and frames."""
    names = "\n".join(dataset.frame_ids)
    return {
        "folder": dataset.folder,
        "points": dataset.points,
        "frames": len(dataset),
        "frames_sha256": hashlib.sha256(names.encode()).hexdigest(),
    }


def build_object_database(dataset: KITTI, path: str | Path) -> ObjectDatabase:
    """Cut the labelled objects with at least one point out of a dataset's whole (not cut) clouds.

    Built in a temporary folder and renamed: two processes may build at once, and a broken-off build leaves nothing that
    could be taken for a database.

    Raises:
        ValueError: if the dataset has no labels or not one labelled object with points.
        OSError: if the folder cannot be written.
    """
    path = Path(path)
    if not dataset.labelled:
        raise ValueError(
            f"object database: {dataset.directory} has no labels (label_2), so there are no objects to cut."
        )
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


def _write(dataset: KITTI, folder: Path) -> None:
    classes: list[str] = []
    records: list[tuple[int, int, NDArray[np.float32], int, int]] = []
    points: list[NDArray[np.float32]] = []
    channels: Sequence[str] = ()
    total = 0
    for index in tqdm(range(len(dataset)), desc="object database", unit="frame", disable=None):
        solid = [o for o in dataset.read_objects(index) if o.name != DONT_CARE]
        calibration = dataset.read_calibration(index)
        if not solid or calibration is None:
            continue
        cloud, _ = dataset.read_cloud(index)
        channels = cloud.channels
        boxes = from_kitti_camera(solid, calibration).boxes
        for o, box, inside in zip(solid, boxes, points_in_boxes(cloud.xyz, boxes), strict=True):
            own = cloud.points[inside]
            if not len(own):
                continue
            own[:, :3] -= box[:3]
            if o.name not in classes:
                classes.append(o.name)
            records.append((classes.index(o.name), o.difficulty, box, total, len(own)))
            points.append(own)
            total += len(own)
    if not records:
        raise ValueError(
            f"object database: no labelled box in {dataset.directory} holds a point. Run data_tools/kitti.py check."
        )
    np.save(folder / "points.npy", PointCloud(np.concatenate(points), tuple(channels)).points)
    np.save(folder / "objects.npy", np.array([(c, d, b, f, n) for c, d, b, f, n in records], dtype=_RECORD))
    index_values = {
        "version": _VERSION,
        "channels": list(channels),
        "classes": classes,
        "source": describe_source(dataset),
    }
    (folder / "index.json").write_text(json.dumps(index_values, indent=2) + "\n", encoding="utf-8")
