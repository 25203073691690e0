"""Do the frames of a dataset hold what training assumes? Looks before a run wastes a day.

Wrong frames of reference between boxes and points do not stop a training; they only make its result worthless. Here
they show: labelled boxes without points, and another reading of the boxes under which they would have some.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adperception.datasets.base import LidarDataset
from adperception.geometry import RangeCoverage, count_points_in_boxes, in_range
from adperception.geometry.ground_height import estimate_ground_height
from adperception.structures import VoxelGrid

__all__ = ["ClassReport", "DataReport", "check_dataset", "require_sane_data"]

_EXPECTED_SHARE = 0.85
# Right boxes of KITTI hold 1.7 times the points of boxes shifted by half their height, 2.3 times those of turned ones.
_SUSPICIOUS_GAIN = 1.4
_ENOUGH_BOXES = 5
_MOST_REMARKS = 20
_HEIGHT_FRAMES = 10
_Boxes = NDArray[np.float32]


def _reordered(boxes: _Boxes, x: int, y: int, signs: tuple[int, int], yaw: Callable[[_Boxes], _Boxes]) -> _Boxes:
    out = boxes.copy()
    out[:, 0], out[:, 1], out[:, 6] = signs[0] * boxes[:, x], signs[1] * boxes[:, y], yaw(boxes[:, 6])
    return out


def _raised(boxes: _Boxes, heights: float = 0.0, metres: float = 0.0) -> _Boxes:
    out = boxes.copy()
    out[:, 2] += np.float32(heights) * boxes[:, 5] + np.float32(metres)
    return out


# Other readings of the same numbers, as people's converters produce them.
_READINGS: Mapping[str, Callable[[_Boxes], _Boxes]] = {
    "swapping (x, y)": lambda b: _reordered(b, 1, 0, (1, 1), lambda yaw: np.float32(np.pi / 2) - yaw),
    "negating x": lambda b: _reordered(b, 0, 1, (-1, 1), lambda yaw: np.float32(np.pi) - yaw),
    "negating y": lambda b: _reordered(b, 0, 1, (1, -1), lambda yaw: -yaw),
    "reading (x, y) as (-y, x)": lambda b: _reordered(b, 1, 0, (1, -1), lambda yaw: yaw - np.float32(np.pi / 2)),
    "reading (x, y) as (y, -x)": lambda b: _reordered(b, 1, 0, (-1, 1), lambda yaw: yaw + np.float32(np.pi / 2)),
    "turning the boxes by 90 degrees": lambda b: _reordered(b, 0, 1, (1, 1), lambda yaw: yaw + np.float32(np.pi / 2)),
    "raising the boxes by half their height": lambda b: _raised(b, heights=0.5),
    "lowering the boxes by half their height": lambda b: _raised(b, heights=-0.5),
    "raising the boxes by 1.73 m (KITTI's sensor height)": lambda b: _raised(b, metres=1.73),
    "lowering the boxes by 1.73 m (KITTI's sensor height)": lambda b: _raised(b, metres=-1.73),
}


@dataclass(frozen=True)
class ClassReport:
    """What was seen of a class.

    Attributes:
        boxes: number of labelled boxes.
        share_with_points: of the boxes, those that hold at least one point.
        median_points: per box.
        mean_size: (length, width, height) in metres.
    """

    boxes: int
    share_with_points: float
    median_points: float
    mean_size: tuple[float, float, float]


@dataclass(frozen=True)
class DataReport:
    """What was seen of a dataset.

    Attributes:
        frames: number of frames looked at.
        labelled_frames: of these, frames with labels (also with none in them).
        points: smallest, median and largest number of points per frame.
        share_in_range: of all points, those inside the range; ``None`` if no range was given.
        classes: by class name.
        remarks: on frames, one line each (NaN points, missing calibration, many boxes without points).
        errors: what would make a training worthless or stop it, one sentence each.
        empty_frames: of the labelled frames, those without an object.
        boxes_in_range: of all boxes, the share with their centre inside the range; ``None`` without range or boxes.
        stated_points: boxes that hold as many points as the labels state, and boxes of which they state a number.
        ground_height: z of the road in the frames as read, metres, to the centimetre: the median of up to ten frames;
            ``None`` if it cannot be estimated in any.
    """

    frames: int
    labelled_frames: int
    points: tuple[int, int, int]
    share_in_range: float | None
    classes: dict[str, ClassReport]
    remarks: tuple[str, ...]
    errors: tuple[str, ...]
    empty_frames: int = 0
    boxes_in_range: float | None = None
    stated_points: tuple[int, int] = (0, 0)
    ground_height: float | None = None

    def table(self) -> str:
        """The report as text for people."""
        low, median, high = self.points
        lines = [
            f"frames: {self.frames} ({self.labelled_frames} labelled"
            + (f", {self.empty_frames} of these without an object)" if self.empty_frames else ")"),
            f"points per frame: {low:,} to {high:,}, median {median:,}",
        ]
        if self.share_in_range is not None:
            lines.append(f"points inside the range: {self.share_in_range:.1%}")
        if self.ground_height is not None:
            lines.append(f"height of the road: {self.ground_height:.2f} m")
        if self.boxes_in_range is not None:
            lines.append(f"boxes with their centre inside the range: {self.boxes_in_range:.1%}")
        same, stated = self.stated_points
        if stated:
            lines.append(f"boxes with as many points as the labels state: {same} of {stated}")
        if self.classes:
            lines.append(f"{'class':<16}{'boxes':>8}{'>= 1 point':>12}{'median points':>15}{'mean l x w x h (m)':>22}")
            for name, c in self.classes.items():
                size = " x ".join(f"{v:.2f}" for v in c.mean_size)
                lines.append(f"{name:<16}{c.boxes:>8}{c.share_with_points:>11.1%} {c.median_points:>14.0f}{size:>22}")
        lines += [f"note: {r}" for r in self.remarks[:_MOST_REMARKS]]
        if len(self.remarks) > _MOST_REMARKS:
            lines.append(f"note: ... and {len(self.remarks) - _MOST_REMARKS} more of this kind")
        lines += [f"ERROR: {e}" for e in self.errors]
        return "\n".join(lines)


def check_dataset(dataset: LidarDataset, grid: VoxelGrid | None = None, max_frames: int | None = None) -> DataReport:
    """Read frames (evenly spread over the dataset, no transforms) and say what they hold.

    Args:
        dataset: a dataset with at least one frame.
        grid: whose range the points should lie in.
        max_frames: number of frames to read; ``None`` reads all.
    """
    count = len(dataset) if max_frames is None else min(max_frames, len(dataset))
    points: list[int] = []
    boxes: list[_Boxes] = []
    names: list[str] = []
    held: dict[str, list[NDArray[np.int64]]] = {reading: [] for reading in ("", *_READINGS)}
    remarks, errors = [], []
    coverage = None if grid is None else RangeCoverage(grid)
    labelled = empty = in_range_boxes = same = stated = 0
    heights: list[float] = []
    indices = np.unique(np.linspace(0, len(dataset) - 1, count).astype(int))
    for number, index in enumerate(indices):
        try:
            frame = dataset.read(int(index))
            told = dataset.stated_points(int(index))
        except (ValueError, OSError) as error:  # one bad file must not hide the others
            errors.append(str(error))
            continue
        points.append(len(frame.cloud))
        remarks += [f"{frame.frame_id}: {note}" for note in frame.notes]
        if coverage is not None:
            coverage.add(frame.cloud.xyz)
        if number % -(-len(indices) // _HEIGHT_FRAMES) == 0:
            height = estimate_ground_height(frame.cloud.xyz)
            heights += [] if height is None else [height]
        labelled += frame.boxes is not None
        empty += frame.boxes is not None and not frame.boxes
        if frame.boxes:
            own = count_points_in_boxes(frame.cloud.xyz, frame.boxes.boxes)
            if np.count_nonzero(own == 0) > max(1, len(own) / 2):
                remarks.append(f"{frame.frame_id}: {np.count_nonzero(own == 0)} of {len(own)} boxes hold no point.")
            if told is not None:
                same += int(np.count_nonzero(told == own))
                stated += int(np.count_nonzero(told >= 0))
            if grid is not None:
                in_range_boxes += int(np.count_nonzero(in_range(frame.boxes.boxes, grid.point_cloud_range)))
            boxes.append(frame.boxes.boxes)
            names += frame.boxes.names
            held[""].append(own)
            for reading, change in _READINGS.items():
                held[reading].append(count_points_in_boxes(frame.cloud.xyz, change(frame.boxes.boxes)))
    if coverage is not None and points:
        try:
            coverage.require_points()
        except ValueError as error:
            errors.append(str(error))
    classes: dict[str, ClassReport] = {}
    if boxes:
        counts = {reading: np.concatenate(values) for reading, values in held.items()}
        classes = _describe_classes(np.concatenate(boxes), np.array(names), counts[""])
        errors += _frame_errors(np.array(names), counts)
    return DataReport(
        frames=len(points),
        labelled_frames=labelled,
        points=(min(points), int(np.median(points)), max(points)) if points else (0, 0, 0),
        share_in_range=None if coverage is None else coverage.inside / max(coverage.total, 1),
        classes=classes,
        remarks=tuple(remarks),
        errors=tuple(errors),
        empty_frames=empty,
        boxes_in_range=in_range_boxes / len(names) if grid is not None and names else None,
        stated_points=(same, stated),
        ground_height=round(float(np.median(heights)), 2) if heights else None,
    )


def require_sane_data(dataset: LidarDataset, grid: VoxelGrid | None = None, max_frames: int = 20) -> DataReport:
    """``check_dataset`` on a few frames, before the first step of a run.

    Raises:
        ValueError: with every error the check found.
    """
    report = check_dataset(dataset, grid, max_frames)
    if report.errors:
        raise ValueError("\n".join(report.errors))
    return report


def _describe_classes(boxes: _Boxes, names: NDArray[np.str_], counts: NDArray[np.int64]) -> dict[str, ClassReport]:
    reports = {}
    for name in sorted(set(names.tolist())):
        mine = names == name
        length, width, height = (float(v) for v in boxes[mine, 3:6].mean(axis=0))
        reports[name] = ClassReport(
            boxes=int(mine.sum()),
            share_with_points=float((counts[mine] > 0).mean()),
            median_points=float(np.median(counts[mine])),
            mean_size=(length, width, height),
        )
    return reports


def _frame_errors(names: NDArray[np.str_], counts: Mapping[str, NDArray[np.int64]]) -> list[str]:
    """At most one sentence: the largest class whose boxes are mostly empty, else boxes that fit better otherwise."""
    classes, numbers = np.unique(names, return_counts=True)
    # One empty box of two proves nothing; only where there is no larger class are small ones asked.
    telling = numbers >= min(_ENOUGH_BOXES, int(numbers.max()))
    for name in classes[telling][np.argsort(-numbers[telling])]:
        shares = {reading: float((c[names == name] > 0).mean()) for reading, c in counts.items()}
        own = shares.pop("")
        best = max(shares, key=lambda reading: shares[reading])
        if own >= _EXPECTED_SHARE or (own > 0.5 and shares[best] < own + 0.1):
            continue
        sentence = (
            f'Data check: only {own:.0%} of "{name}" boxes contain any point (expected > {_EXPECTED_SHARE:.0%}). '
            "Boxes and points are probably in different frames"
        )
        return [f"{sentence}; {best} would give {shares[best]:.0%}." if shares[best] > own + 0.1 else f"{sentence}."]
    totals = {reading: int(c.sum()) for reading, c in counts.items()}
    present = totals.pop("")
    best = max(totals, key=lambda reading: totals[reading])
    if len(names) >= _ENOUGH_BOXES and totals[best] > _SUSPICIOUS_GAIN * present:
        return [
            f"Data check: the {len(names)} labelled boxes hold {present:,} points, but {best} would give "
            f"{totals[best]:,}. The boxes probably follow another convention (centre or bottom, yaw, order of sizes)."
        ]
    return []
