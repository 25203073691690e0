"""Ground-truth sampling (SECOND, Yan et al. 2018): objects of other frames pasted into a frame."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adperception.datasets.base import LidarDataset
from adperception.datasets.object_database import (
    ObjectDatabase,
    build_object_database,
    default_database_path,
    describe_source,
)
from adperception.geometry import bev_collisions, points_in_boxes
from adperception.registry import TRANSFORMS
from adperception.structures import Boxes3D, LidarFrame, PointCloud

__all__ = ["GroundTruthSampling"]

_log = logging.getLogger(__name__)


@TRANSFORMS.register_module()
class GroundTruthSampling:
    """Adds objects cut out of other frames, of each class up to a given number.

    Works for every dataset with labels. Pasted boxes keep their place and heading; they are put on the road plane of
    the scene where it has one. A drawn box that collides, seen from above, with a box of the scene or with another
    drawn box is not used (as upstream, of two drawn boxes that collide neither is). Points of the scene inside pasted
    boxes are removed.

    The objects come from the frames of the dataset and from no other: with ``fraction=0.05`` from those 5 %.

    This puts labels into self-supervised pre-training, so our pre-training configs leave it out; those named
    ``upstream`` have it.

    Args:
        objects: class name to number of objects; by default KITTI's ``Car=20, Pedestrian=15, Cyclist=15``.
        database: folder of the object database; by default beside the data (KITTI:
            ``<root>/object_database_<folder>_<points>_<split>``), for a subset of a split with a hash of its frames.
            Built on first use if it does not exist.
        min_points: objects with fewer points are not used: a number, or one per class name. Nor are objects of
            difficulty -1, where a dataset has difficulties.
        top_up: ``True`` (OpenPCDet: ``LIMIT_WHOLE_SCENE: True``) draws as many objects as the frame lacks to the number
            in ``objects``; ``False`` always draws that number, however many the frame has.
    """

    def __init__(
        self,
        objects: Mapping[str, int] | None = None,
        database: str | None = None,
        min_points: int | Mapping[str, int] = 5,
        top_up: bool = True,
    ) -> None:
        self.objects = dict(objects or {"Car": 20, "Pedestrian": 15, "Cyclist": 15})
        for name, number in self.objects.items():
            if number < 0:
                raise ValueError(f"GroundTruthSampling: objects[{name!r}]={number} must be 0 or more.")
        if not isinstance(min_points, int) and set(min_points) != set(self.objects):
            raise ValueError(
                f"GroundTruthSampling: min_points names {', '.join(min_points) or 'nobody'}, objects names "
                f"{', '.join(self.objects)}. Give one number for all classes, or one for each of them."
            )
        self.path = None if database is None else Path(database)
        self.min_points = dict.fromkeys(self.objects, min_points) if isinstance(min_points, int) else dict(min_points)
        self.top_up = top_up
        self.database: ObjectDatabase | None = None
        self._candidates: dict[str, NDArray[np.int64]] = {}

    def bind(self, dataset: LidarDataset) -> None:
        """Open the database, or build it from ``dataset`` first.

        Raises:
            ValueError: if the dataset has no labels, or the database was built from other frames.
        """
        if not dataset.labelled:
            raise ValueError(
                f"GroundTruthSampling: {getattr(dataset, 'root', type(dataset).__name__)} has no labels to cut objects "
                "from. Take the transform out of the config for unlabelled data."
            )
        path = self.path or default_database_path(dataset)
        if (path / "index.json").is_file():
            database = ObjectDatabase.open(path)
            if database.source != describe_source(dataset):
                raise ValueError(
                    f"GroundTruthSampling: {path} was built from other frames ({database.source}) than this dataset's "
                    f"({describe_source(dataset)}): it would bring in objects that this dataset must not know. Delete "
                    "the folder, and it is built anew, or name another with database=."
                )
        else:
            database = build_object_database(dataset, path)
        self.use(database)

    def use(self, database: ObjectDatabase) -> None:
        """Sample from ``database``."""
        self.database = database
        for name in self.objects:
            if name not in database.classes:
                _log.warning(
                    'GroundTruthSampling: %s has no "%s" (it has %s): none will be pasted.',
                    *(database.path, name, ", ".join(database.classes)),
                )
        self._candidates = {name: database.candidates(name, self.min_points[name]) for name in self.objects}

    def __call__(self, frame: LidarFrame, rng: np.random.Generator) -> LidarFrame:
        """The frame with pasted objects; their points come first.

        Raises:
            ValueError: for an unlabelled frame, or a database with other channels.
        """
        if self.database is None:
            raise ValueError("GroundTruthSampling: no database yet. Give the transform to a dataset, or call use().")
        if frame.boxes is None:
            raise ValueError(f"GroundTruthSampling: frame {frame.frame_id} has no labels to keep clear of.")
        if frame.cloud.channels != self.database.channels:
            raise ValueError(
                f"GroundTruthSampling: the database has the channels {self.database.channels}, frame {frame.frame_id} "
                f"has {frame.cloud.channels}. Build the database from the same kind of clouds."
            )
        present, names = frame.boxes.boxes, list(frame.boxes.names)
        pasted: list[NDArray[np.float32]] = [np.zeros((0, len(frame.cloud.channels)), dtype=np.float32)]
        for name, number in self.objects.items():
            lacking = number - frame.boxes.names.count(name) if self.top_up else number
            positions = self._draw(name, lacking, rng)
            boxes = self.database.boxes(positions)
            among = bev_collisions(boxes, boxes)
            np.fill_diagonal(among, False)
            free = ~(bev_collisions(boxes, present).any(axis=1) | among.any(axis=1))
            positions, boxes = positions[free], boxes[free]
            if frame.road_plane is not None:
                boxes = _on_plane(boxes, frame.road_plane)
            for position, box in zip(positions, boxes, strict=True):
                points = self.database.points(int(position))
                points[:, :3] += box[:3]
                pasted.append(points)
            present = np.concatenate([present, boxes])
            names += [name] * len(boxes)
        covered = points_in_boxes(frame.cloud.xyz, present[len(frame.boxes) :]).any(axis=0)
        points = np.concatenate([*pasted, frame.cloud.points[~covered]])
        return replace(
            frame,
            cloud=PointCloud(points, frame.cloud.channels),
            boxes=Boxes3D(present.astype(np.float32), tuple(names)),
        )

    def _draw(self, name: str, number: int, rng: np.random.Generator) -> NDArray[np.int64]:
        candidates = self._candidates[name]
        size = min(max(number, 0), len(candidates))
        return np.asarray(rng.choice(candidates, size=size, replace=False) if size else candidates[:0])


def _on_plane(boxes: NDArray[np.float32], plane: NDArray[np.float64]) -> NDArray[np.float32]:
    """The boxes with their bottom centres on the road plane ``(4,)`` of the LiDAR frame."""
    moved = boxes.copy()
    moved[:, 2] = -(boxes[:, :2] @ plane[:2] + plane[3]) / plane[2] + boxes[:, 5] / 2
    return moved
