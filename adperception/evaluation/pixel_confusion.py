"""Segmentation measures from one confusion matrix over all pixels of all frames.

Counts are pooled and the measures computed once at the end, as the multi-view radar protocol does (MVRSS, Ouaknine et
al., ICCV 2021): a mean of measures per frame would give the many frames without an object a weight of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adperception.evaluation.metric_report import mean_of_defined

__all__ = ["MEASURES", "PixelMeasures", "confusion_matrix", "pixel_measures"]

MEASURES = ("iou", "dice", "precision", "recall")


def confusion_matrix(truth: NDArray[np.integer], predicted: NDArray[np.integer], classes: int) -> NDArray[np.int64]:
    """``(classes, classes)`` pixel counts, rows true, columns predicted.

    Args:
        truth: class ids, any shape.
        predicted: class ids of the same pixels.
        classes: number of classes, background included.

    Raises:
        ValueError: if the shapes differ or an id is not in ``0 .. classes - 1``.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"the predicted mask has shape {predicted.shape}, the true one {truth.shape}.")
    for name, ids in (("true", truth), ("predicted", predicted)):
        if ids.size and (ids.min() < 0 or ids.max() >= classes):
            raise ValueError(
                f"the {name} mask holds class ids {ids.min()} to {ids.max()}; there are 0 to {classes - 1}."
            )
    # intp at once: uint8 would overflow from 16 classes on.
    cells = truth.astype(np.intp).ravel() * classes + predicted.ravel()
    return np.bincount(cells, minlength=classes * classes).astype(np.int64).reshape(classes, classes)


@dataclass(frozen=True)
class PixelMeasures:
    """Measures of each class in per cent; NaN for a class that has no true pixel.

    Attributes:
        of: ``iou``, ``dice``, ``precision`` and ``recall``, each ``(classes,)``; class 0 is the background.
    """

    of: Mapping[str, NDArray[np.float64]]

    def mean(self, measure: str, background: bool = True) -> float:
        """The mean over the classes that have a value, with or without the background; NaN if none has.

        The background fills nearly every pixel of a radar map: its IoU is above 99 whatever the model does, so with it
        a mean IoU over four classes starts at 25.
        """
        return mean_of_defined(float(value) for value in self.of[measure][0 if background else 1 :])


def pixel_measures(matrix: NDArray[np.int64], absent_is_zero: bool = False) -> PixelMeasures:
    """IoU, Dice, precision and recall of each class from pixel counts (rows true, columns predicted).

    A class with true pixels that is never predicted has precision 0.

    Args:
        matrix: ``(classes, classes)``.
        absent_is_zero: a class without true pixels gets 0 and not NaN, so it stays in the means: MVRSS's rule.
    """
    hits = np.diag(matrix).astype(np.float64)
    true, predicted = matrix.sum(axis=1).astype(np.float64), matrix.sum(axis=0).astype(np.float64)
    absent = 0.0 if absent_is_zero else np.nan

    def ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
        value = 100 * np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
        return np.where(true > 0, value, absent)

    return PixelMeasures(
        {
            "iou": ratio(hits, true + predicted - hits),
            "dice": ratio(2 * hits, true + predicted),
            "precision": ratio(hits, predicted),
            "recall": ratio(hits, true),
        }
    )
