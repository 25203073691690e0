"""Classes of the pixels of two radar views, as an evaluation of a run or of stored predictions."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from adperception.evaluation.metric_report import metric_table
from adperception.evaluation.pixel_confusion import MEASURES, confusion_matrix, pixel_measures
from adperception.evaluation.radar_evaluation import RadarEvaluation
from adperception.models.radar.base import RadarPrediction
from adperception.registry import EVALUATIONS
from adperception.structures import RadarMasks, RadarObjects

__all__ = ["BACKGROUND", "VIEWS", "RadarSegmentation", "segmentation_metrics"]

BACKGROUND = "background"
VIEWS = {"rd": "range_doppler", "ra": "range_angle"}
"""Short names, used in metrics, of the views that have masks."""

_NAMES = {"iou": "IoU", "dice": "Dice", "precision": "precision", "recall": "recall"}


def segmentation_metrics(
    matrices: Mapping[str, NDArray[np.int64]], class_names: tuple[str, ...], mvrss: bool = False
) -> dict[str, float]:
    """Metrics by name from one confusion matrix per view.

    Per view v (``rd``, ``ra``), class c (``background`` too) and measure m (``iou``, ``dice``, ``precision``,
    ``recall``), in per cent: ``v_c_m``, ``v_mean_m`` over all classes and ``v_mean_m_no_background``. Over both views:
    ``mean_dice`` and ``mean_iou_no_background``, and ``mvrss_precision``, by which MVRSS selects its checkpoints
    (always by its own rule). Pixels are ``v_c_as_p_pixels`` for true class c and predicted class p.

    Args:
        matrices: ``(classes, classes)`` pixel counts by short view name, rows true, columns predicted.
        class_names: the foreground classes.
        mvrss: see ``RadarSegmentation``.
    """
    names = (BACKGROUND, *class_names)
    metrics: dict[str, float] = {}
    precisions = []
    for view, matrix in matrices.items():
        measures = pixel_measures(matrix, absent_is_zero=mvrss)
        precisions.append(pixel_measures(matrix, absent_is_zero=True).mean("precision"))
        for measure in MEASURES:
            for name, value in zip(names, measures.of[measure], strict=True):
                metrics[f"{view}_{name}_{measure}"] = float(value)
            metrics[f"{view}_mean_{measure}"] = measures.mean(measure)
            metrics[f"{view}_mean_{measure}_no_background"] = measures.mean(measure, background=False)
    for measure in ("dice", "iou_no_background"):
        metrics[f"mean_{measure}"] = float(np.mean([metrics[f"{view}_mean_{measure}"] for view in matrices]))
    metrics["mvrss_precision"] = float(np.mean(precisions))
    for view, matrix in matrices.items():
        for i, true in enumerate(names):
            for j, predicted in enumerate(names):
                metrics[f"{view}_{true}_as_{predicted}_pixels"] = float(matrix[i, j])
    return metrics


class _Pixels:
    """Confusion matrices of both views over the frames so far."""

    def __init__(self, class_names: tuple[str, ...], mvrss: bool) -> None:
        self.class_names = class_names
        self.mvrss = mvrss
        self.frames = 0
        self.empty = 0
        size = len(class_names) + 1
        self.matrices = {view: np.zeros((size, size), dtype=np.int64) for view in VIEWS}

    def add(
        self, frame_id: str, found: RadarPrediction, masks: RadarMasks | None, objects: RadarObjects | None
    ) -> None:
        if masks is None:
            raise ValueError(f"RadarSegmentation: frame {frame_id} has no masks to compare with.")
        if found.masks is None:
            raise ValueError(
                f"RadarSegmentation: the model gives no masks for frame {frame_id}, it only detects. Evaluate it with "
                "RadarDetection."
            )
        for view, name in VIEWS.items():
            truth, predicted = getattr(masks, name), getattr(found.masks, name)
            try:
                self.matrices[view] += confusion_matrix(truth, predicted, len(self.class_names) + 1)
            except ValueError as error:
                raise ValueError(f"frame {frame_id}, {name}: {error}") from error
        self.frames += 1
        self.empty += not (masks.range_doppler.any() or masks.range_angle.any())

    def metrics(self) -> dict[str, float]:
        counts = {"frames": float(self.frames), "frames_without_object": float(self.empty)}
        return {**segmentation_metrics(self.matrices, self.class_names, self.mvrss), **counts}


@EVALUATIONS.register_module()
class RadarSegmentation(RadarEvaluation):
    """IoU, Dice, precision and recall per class and view, and their means with and without background.

    One confusion matrix per view is summed over all frames, those without an object included: a false alarm there
    lowers the precision. A class without a true pixel is n/a and leaves the means.

    Args:
        every_epochs: how often it runs during training.
        mvrss: the published rule instead: such a class counts as 0 and stays in the means. The two differ only then.
    """

    headline = ("mean_dice", "rd_mean_iou", "ra_mean_iou", "rd_mean_iou_no_background", "ra_mean_iou_no_background")

    def __init__(self, every_epochs: int = 1, mvrss: bool = False) -> None:
        super().__init__(every_epochs)
        self.mvrss = mvrss

    def score(self) -> _Pixels:
        """Empty confusion matrices."""
        return _Pixels(tuple(self.dataset.class_names), self.mvrss)

    def report(self, metrics: Mapping[str, float]) -> str:
        """A table and a confusion matrix per view, and what a reader must know about them."""
        names = (BACKGROUND, *self.dataset.class_names)
        lines = []
        for view, title in VIEWS.items():
            rows = [(name, [metrics[f"{view}_{name}_{m}"] for m in MEASURES]) for name in names]
            rows.append(("mean", [metrics[f"{view}_mean_{m}"] for m in MEASURES]))
            rows.append(("mean, no background", [metrics[f"{view}_mean_{m}_no_background"] for m in MEASURES]))
            heading = f"{title.replace('_', '-')} (%)"
            lines += [*metric_table(heading, [_NAMES[m] for m in MEASURES], rows), ""]
        lines += [*self._pixel_tables(metrics, names), *self._remarks(metrics)]
        return "\n".join(lines)

    def _pixel_tables(self, metrics: Mapping[str, float], names: tuple[str, ...]) -> list[str]:
        lines = []
        for view in VIEWS:
            lines.append(f"{view} pixels, rows true, columns predicted ({', '.join(names)}):")
            for true in names:
                counts = [metrics[f"{view}_{true}_as_{predicted}_pixels"] for predicted in names]
                lines.append("  " + " ".join(f"{count:12,.0f}" for count in counts))
        return lines

    def _remarks(self, metrics: Mapping[str, float]) -> list[str]:
        missing = [
            f"{view} {name}"
            for view in VIEWS
            for name in self.dataset.class_names
            if not sum(metrics[f"{view}_{name}_as_{p}_pixels"] for p in (BACKGROUND, *self.dataset.class_names))
        ]
        lines = [
            f"{metrics['frames']:.0f} frames, {metrics['frames_without_object']:.0f} without an object. Mean of both "
            f"views' mean Dice: {metrics['mean_dice']:.2f}; of their mean precision, MVRSS's rule for choosing a "
            f"checkpoint: {metrics['mvrss_precision']:.2f}.",
            f"Azimuth axis of the labels (ra_label_axis): {self.dataset.label_axis}.",
        ]
        if missing:
            verdict = "counted as 0 (mvrss=True)" if self.mvrss else "n/a and not in the means"
            lines.append(f"No true pixel of {', '.join(missing)}: {verdict}.")
        return lines
