"""Average precision of boxes in range, azimuth and Doppler by RADDet's own rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from adperception.evaluation.center_matching import all_point_average_precision
from adperception.evaluation.metric_report import mean_of_defined, metric_table
from adperception.evaluation.radar_evaluation import RadarEvaluation
from adperception.models.radar.base import RadarPrediction
from adperception.registry import EVALUATIONS
from adperception.structures import RadarMasks, RadarObjects

__all__ = ["RADDetAP", "box_overlaps", "suppress_overlapping"]

Boxes = NDArray[np.float64]
Sizes = Mapping[str, Sequence[float]]


@runtime_checkable
class _KnowsSizes(Protocol):
    """A dataset that can say how large the objects of its training split are."""

    def training_sizes(self) -> Sizes:
        """Mean extents in cells (range, azimuth, Doppler) by class name, for every class."""


def box_overlaps(first: Boxes, second: Boxes) -> Boxes:
    """``(N, M)`` intersection over union of boxes ``(N, 6)`` and ``(M, 6)``, centres and sizes.

    RADDet's rule: no axis wraps around, although Doppler does.
    """
    low = np.maximum((first[:, :3] - first[:, 3:] / 2)[:, None], (second[:, :3] - second[:, 3:] / 2)[None])
    high = np.minimum((first[:, :3] + first[:, 3:] / 2)[:, None], (second[:, :3] + second[:, 3:] / 2)[None])
    shared = np.maximum(high - low, 0).prod(axis=-1)
    union = first[:, 3:].prod(axis=1)[:, None] + second[:, 3:].prod(axis=1)[None] - shared
    return np.asarray(shared / np.maximum(union, 1e-10))


def suppress_overlapping(boxes: Boxes, scores: NDArray[np.floating], limit: float) -> NDArray[np.int64]:
    """Indices of the boxes that stay, best first, if each removes those that overlap it by more than ``limit``."""
    overlaps = box_overlaps(boxes, boxes)
    left = np.argsort(-scores, kind="stable")
    kept = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        left = left[overlaps[best, left] <= limit]
    return np.array(kept, dtype=np.int64)


class _FrameMeans:
    """APs of the frames so far."""

    def __init__(
        self, names: tuple[str, ...], iou: tuple[float, ...], confidence: float, nms_iou: float, sizes: Sizes | None
    ) -> None:
        self.names, self.iou, self.confidence, self.nms_iou, self.sizes = names, iou, confidence, nms_iou, sizes
        self.aps: dict[float, list[list[float]]] = {threshold: [[] for _ in names] for threshold in iou}
        self.frame_means: dict[float, list[float]] = {threshold: [] for threshold in iou}
        self.labels = np.zeros(len(names), dtype=np.int64)
        self.detections = np.zeros(len(names), dtype=np.int64)
        self.filled = 0

    def add(
        self, frame_id: str, found: RadarPrediction, masks: RadarMasks | None, objects: RadarObjects | None
    ) -> None:
        if objects is None or found.objects is None:
            missing = "frame has no labelled objects" if objects is None else "model gives no objects, it only segments"
            raise ValueError(f"RADDetAP: frame {frame_id}: the {missing}.")
        confident = found.objects.select(found.objects.scores >= self.confidence)
        frame: dict[float, list[float]] = {threshold: [] for threshold in self.iou}
        for number in range(len(self.names)):
            truth = _boxes(objects.select(objects.class_ids == number + 1))
            mine = confident.select(confident.class_ids == number + 1)
            boxes = self._sized(_boxes(mine), number, frame_id)
            kept = suppress_overlapping(boxes, mine.scores, self.nms_iou)
            self.labels[number] += len(truth)
            self.detections[number] += len(kept)
            if not len(truth):
                continue
            overlaps = box_overlaps(boxes[kept], truth)
            for threshold in self.iou:
                ap = 100 * all_point_average_precision(mine.scores[kept], _hits(overlaps, threshold), len(truth))
                frame[threshold].append(ap)
                self.aps[threshold][number].append(ap)
        for threshold, values in frame.items():
            if values:
                self.frame_means[threshold].append(float(np.mean(values)))

    def metrics(self) -> dict[str, float]:
        metrics = {}
        for threshold in self.iou:
            for number, name in enumerate(self.names):
                metrics[f"{name}_AP_iou_{threshold:g}"] = mean_of_defined(self.aps[threshold][number])
            metrics[f"AP_iou_{threshold:g}"] = mean_of_defined(self.frame_means[threshold])
        for number, name in enumerate(self.names):
            metrics[f"{name}_boxes"] = float(self.labels[number])
            metrics[f"{name}_found_boxes"] = float(self.detections[number])
        metrics["frames_with_boxes"] = float(len(self.frame_means[self.iou[0]]))
        metrics["boxes_of_usual_size"] = float(self.filled)
        return metrics

    def _sized(self, boxes: Boxes, number: int, frame_id: str) -> Boxes:
        """Boxes without a size get that of their class."""
        unknown = ~(boxes[:, 3:] > 0).all(axis=1)
        if not unknown.any():
            return boxes
        name = self.names[number]
        if self.sizes is None or name not in self.sizes:
            raise ValueError(
                f"RADDetAP: frame {frame_id}: a detected {name} has no size, and none is known for its class. Give "
                f'class_sizes={{"{name}": (range, azimuth, Doppler cells), ...}}.'
            )
        self.filled += int(unknown.sum())
        boxes[unknown, 3:] = self.sizes[name]
        return boxes


@EVALUATIONS.register_module()
class RADDetAP(RadarEvaluation):
    """Average precision at 3-D overlap, as RADDet computes it (CRV 2021, arXiv 2105.00363, and its code).

    Detections above ``confidence`` go through non-maximum suppression per class. **In each frame** and for each class
    with a true box in it, a detection (best first) is right if its largest overlap with a true box reaches the
    threshold and that box is still free; AP is the area under the all-point interpolated curve. A frame's AP is the
    mean over its classes, ``AP_iou_t`` the mean over the frames with a true box, ``c_AP_iou_t`` the mean over the
    frames with a box of class c; per cent. So a false alarm counts only in frames that hold an object of its class.

    A detector of centres gives no sizes (0): then the boxes get the mean size of their class in the training split,
    from ``class_sizes`` or else from the dataset. RADDet's second figure, 2-D AP in a Cartesian map, needs boxes in
    metres across and along the view, which range-azimuth-Doppler objects do not have: it is not computed.

    Args:
        every_epochs: how often it runs during training.
        iou: thresholds.
        confidence: lowest score that counts; RADDet's is 0.5, made for its own scores.
        nms_iou: detections that overlap a better one of their class by more are dropped.
        class_sizes: extents in cells (range, azimuth, Doppler) by class, for detections without a size; ``None`` asks
            the dataset.

    Raises:
        ValueError: for thresholds outside 0..1 or sizes that are not three positive numbers.
    """

    def __init__(
        self,
        every_epochs: int = 1,
        iou: Sequence[float] = (0.1, 0.3, 0.5, 0.7),
        confidence: float = 0.5,
        nms_iou: float = 0.1,
        class_sizes: Sizes | None = None,
    ) -> None:
        super().__init__(every_epochs)
        if not iou or not all(0 < t <= 1 for t in (*iou, nms_iou)) or not 0 <= confidence <= 1:
            raise ValueError(f"RADDetAP: iou={list(iou)}, nms_iou={nms_iou}, confidence={confidence} must lie in 0..1.")
        for name, size in (class_sizes or {}).items():
            if len(size) != 3 or not min(size) > 0:
                raise ValueError(f"RADDetAP: class_sizes of {name} are {list(size)}, must be three positive numbers.")
        self.iou = tuple(iou)
        self.confidence = confidence
        self.nms_iou = nms_iou
        self.class_sizes = class_sizes
        self.headline = tuple(f"AP_iou_{threshold:g}" for threshold in self.iou)

    def bind(self, dataset: Any, folder: Any = None) -> None:
        """See ``RadarEvaluation``; asks the dataset for sizes if there are none."""
        super().bind(dataset, folder)
        self._sizes = self.class_sizes
        if self._sizes is None and isinstance(dataset, _KnowsSizes):
            self._sizes = dataset.training_sizes()

    def score(self) -> _FrameMeans:
        """No frame yet."""
        names = tuple(self.dataset.class_names)
        return _FrameMeans(names, self.iou, self.confidence, self.nms_iou, self._sizes)

    def report(self, metrics: Mapping[str, float]) -> str:
        """A table, and the rule."""
        names = tuple(self.dataset.class_names)
        rows = [(n, [metrics[f"{n}_AP_iou_{t:g}"] for t in self.iou]) for n in names]
        rows.append(("all, mean of frames", [metrics[f"AP_iou_{t:g}"] for t in self.iou]))
        lines = [*metric_table("AP (%) at 3-D IoU", [f"{t:g}" for t in self.iou], rows), ""]
        counts = ", ".join(
            f"{n} {metrics[f'{n}_boxes']:.0f} boxes {metrics[f'{n}_found_boxes']:.0f} detections" for n in names
        )
        lines += [
            f"{counts}. {metrics['frames_with_boxes']:.0f} frames with an object.",
            "RADDet's rule: AP of each frame, mean over frames; false alarms count only in frames with their class.",
        ]
        if metrics["boxes_of_usual_size"]:
            lines.append(
                f"{metrics['boxes_of_usual_size']:.0f} detections had no size and got the mean size of their class in "
                "the training split."
            )
        return "\n".join(lines)


def _boxes(objects: RadarObjects) -> Boxes:
    return np.concatenate([objects.cells, objects.sizes], axis=1).astype(np.float64)


def _hits(overlaps: Boxes, threshold: float) -> NDArray[np.bool_]:
    """Which detections (rows, best first) are right: only the truth that they overlap most counts for them."""
    hits = np.zeros(len(overlaps), dtype=np.bool_)
    taken: set[int] = set()
    for row, values in enumerate(overlaps):
        best = int(values.argmax())
        if values[best] >= threshold and best not in taken:
            hits[row] = True
            taken.add(best)
    return hits
