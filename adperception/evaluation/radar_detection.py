"""Object centres in range and Doppler, as an evaluation of a run or of stored predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adperception.evaluation.center_matching import all_point_average_precision, circular_difference, match_centers
from adperception.evaluation.metric_report import mean_of_defined, metric_table
from adperception.evaluation.radar_evaluation import RadarEvaluation
from adperception.models.radar.base import RadarPrediction
from adperception.registry import EVALUATIONS
from adperception.structures import RadarGrid, RadarMasks, RadarObjects

__all__ = ["RadarDetection"]

_ERRORS = ("range_error_m", "azimuth_error_deg", "velocity_error_mps")
_ALL = "all"


@dataclass(frozen=True)
class _Frame:
    """What is left of a frame once its objects are matched.

    Attributes:
        class_ids: ``(N,)`` of the detections.
        scores: ``(N,)``.
        hits: ``(N,)`` whether they match.
        errors: ``(N, 3)`` absolute errors in metres, degrees, metres per second; NaN without a match.
        labels: ``(L,)`` class ids of the true objects.
    """

    class_ids: NDArray[np.int64]
    scores: NDArray[np.float32]
    hits: NDArray[np.bool_]
    errors: NDArray[np.float64]
    labels: NDArray[np.int64]


class _Centers:
    """Matched centres over the frames so far."""

    def __init__(
        self, class_names: tuple[str, ...], grid: RadarGrid, range_cells: float, doppler_cells: float, min_score: float
    ) -> None:
        self.class_names = class_names
        self.grid = grid
        self.range_cells = range_cells
        self.doppler_cells = doppler_cells
        self.min_score = min_score
        self.frames: list[_Frame] = []

    def add(
        self, frame_id: str, found: RadarPrediction, masks: RadarMasks | None, objects: RadarObjects | None
    ) -> None:
        if objects is None:
            raise ValueError(f"RadarDetection: frame {frame_id} has no objects to compare with.")
        if found.objects is None:
            raise ValueError(
                f"RadarDetection: the model gives no objects for frame {frame_id}, it only segments. Evaluate it with "
                "RadarSegmentation."
            )
        self._check(frame_id, found.objects)
        matches = match_centers(
            found.objects, objects, self.range_cells, self.doppler_cells, doppler_bins=self.grid.doppler_bins
        )
        hits = matches >= 0
        errors = np.full((len(matches), 3), np.nan)
        errors[hits] = self._errors(found.objects.select(hits), objects.select(matches[hits]))
        self.frames.append(_Frame(found.objects.class_ids, found.objects.scores, hits, errors, objects.class_ids))

    def _check(self, frame_id: str, found: RadarObjects) -> None:
        if not (np.isfinite(found.cells).all() and np.isfinite(found.scores).all()):
            raise ValueError(f"RadarDetection: frame {frame_id}: a found centre or score is not finite.")
        if len(found) and not (found.class_ids.min() >= 1 and found.class_ids.max() <= len(self.class_names)):
            raise ValueError(
                f"RadarDetection: frame {frame_id}: found class ids {found.class_ids.min()} to "
                f"{found.class_ids.max()}; there are 1 to {len(self.class_names)} ({', '.join(self.class_names)})."
            )

    def _errors(self, found: RadarObjects, truth: RadarObjects) -> NDArray[np.float64]:
        """``(N, 3)`` absolute differences of matched objects."""
        columns = circular_difference(found.cells[:, 2], truth.cells[:, 2], self.grid.doppler_bins)
        return np.abs(
            np.column_stack(
                [
                    found.range_m(self.grid) - truth.range_m(self.grid),
                    found.azimuth_deg(self.grid) - truth.azimuth_deg(self.grid),
                    columns * self.grid.doppler_bin_mps,
                ]
            )
        )

    def metrics(self) -> dict[str, float]:
        """See ``RadarDetection``."""
        frames = self.frames
        class_ids = _joined([f.class_ids for f in frames])
        scores, hits = _joined([f.scores for f in frames]), _joined([f.hits for f in frames]).astype(np.bool_)
        labels = _joined([f.labels for f in frames])
        errors = np.concatenate([np.zeros((0, 3)), *(f.errors for f in frames)])
        confident = scores >= self.min_score
        metrics: dict[str, float] = {}
        for number, name in enumerate((*self.class_names, _ALL), 1):
            of_class = np.ones(len(scores), dtype=bool) if name == _ALL else class_ids == number
            count = len(labels) if name == _ALL else int((labels == number).sum())
            if name != _ALL:
                ap = all_point_average_precision(scores[of_class], hits[of_class], count)
                metrics[f"{name}_center_AP"] = 100 * ap
            shown = of_class & confident
            right = shown & hits
            metrics[f"{name}_center_recall"] = 100 * float(right.sum()) / count if count else float("nan")
            metrics[f"{name}_center_precision"] = (
                (100 * float(right.sum()) / max(int(shown.sum()), 1)) if count else float("nan")
            )
            for axis, error in enumerate(_ERRORS):
                values = errors[right, axis]
                metrics[f"{name}_mean_{error}"] = float(values.mean()) if len(values) else float("nan")
                metrics[f"{name}_median_{error}"] = float(np.median(values)) if len(values) else float("nan")
            metrics[f"{name}_labels"] = float(count)
            metrics[f"{name}_detections"] = float(shown.sum())
        metrics["mean_center_AP"] = mean_of_defined(metrics[f"{name}_center_AP"] for name in self.class_names)
        empty = [int((f.scores >= self.min_score).sum()) for f in frames if not len(f.labels)]
        metrics["empty_frames"] = float(len(empty))
        metrics["false_alarms_per_empty_frame"] = float(np.mean(empty)) if empty else float("nan")
        return metrics


@EVALUATIONS.register_module()
class RadarDetection(RadarEvaluation):
    """Average precision, recall and precision of object centres, and how far off the right ones are.

    A detection is right if a true object of its class is at most ``range_cells`` rows and ``doppler_cells`` Doppler
    columns (circular) away; detections choose greedily by score, each true object is taken once. AP is the area under
    the all-point interpolated curve. Metrics per class c: ``c_center_AP`` (per cent, n/a without a true object),
    ``c_center_recall``, ``c_center_precision``, mean and median errors of the right ones (``c_median_range_error_m``,
    ``..._azimuth_error_deg``, ``..._velocity_error_mps``); ``all_...`` over all classes, ``mean_center_AP``, and
    ``false_alarms_per_empty_frame``.

    Args:
        every_epochs: how often it runs during training.
        range_cells: tolerance in range rows; 4 at CARRADA's 0.195 m are 0.78 m.
        doppler_cells: tolerance in Doppler columns; 2 at CARRADA's 0.42 m/s are 0.84 m/s.
        min_score: detections below it count for the AP only. A model has its own threshold besides.

    Raises:
        ValueError: for a tolerance that is not positive.
    """

    headline = ("mean_center_AP", "all_center_recall", "false_alarms_per_empty_frame")

    def __init__(
        self, every_epochs: int = 1, range_cells: float = 4.0, doppler_cells: float = 2.0, min_score: float = 0.0
    ) -> None:
        super().__init__(every_epochs)
        for name, value in (("range_cells", range_cells), ("doppler_cells", doppler_cells)):
            if not value > 0:
                raise ValueError(f"RadarDetection: {name}={value} must be positive.")
        self.range_cells = range_cells
        self.doppler_cells = doppler_cells
        self.min_score = min_score

    def score(self) -> _Centers:
        """No frame yet."""
        dataset = self.dataset
        return _Centers(tuple(dataset.class_names), dataset.grid, self.range_cells, self.doppler_cells, self.min_score)

    def report(self, metrics: Mapping[str, float]) -> str:
        """Tables of precision and of errors, and the rule they follow."""
        names, grid = tuple(self.dataset.class_names), self.dataset.grid
        columns = ("AP", "recall", "precision")
        rows = [(name, [metrics[f"{name}_center_{column}"] for column in columns]) for name in names]
        overall = [metrics["mean_center_AP"], metrics["all_center_recall"], metrics["all_center_precision"]]
        lines = [*metric_table("centres (%)", columns, [*rows, ("mean AP, all centres", overall)]), ""]
        errors = [
            (name, [metrics[f"{name}_{kind}_{error}"] for error in _ERRORS for kind in ("median", "mean")])
            for name in (*names, _ALL)
        ]
        headings = [f"{kind} {unit}" for unit in ("m", "deg", "m/s") for kind in ("median", "mean")]
        lines += [*metric_table("errors of right centres", headings, errors), ""]
        counts = ", ".join(
            f"{name} {metrics[f'{name}_labels']:.0f} labels {metrics[f'{name}_detections']:.0f} detections"
            for name in names
        )
        alarms = metrics["false_alarms_per_empty_frame"]
        lines += [
            f"Right: same class, within {self.range_cells:g} range cells ({self.range_cells * grid.range_bin_m:.2f} m) "
            f"and {self.doppler_cells:g} Doppler cells ({self.doppler_cells * grid.doppler_bin_mps:.2f} m/s).",
            f"{counts}. False alarms per empty frame: {'n/a' if alarms != alarms else f'{alarms:.3f}'} "
            f"({metrics['empty_frames']:.0f} empty frames).",
            f"Azimuth axis of the labels (ra_label_axis): {self.dataset.label_axis}.",
        ]
        if self.dataset.label_axis == "angle":
            lines.append("Labels on this axis do not lie on the echo: azimuth errors contain that shift.")
        return "\n".join(lines)


def _joined(
    arrays: list[NDArray[np.int64]] | list[NDArray[np.float32]] | list[NDArray[np.bool_]],
) -> NDArray[np.float64]:
    """One array of all; empty if there is none."""
    return np.concatenate([np.zeros(0), *arrays])
