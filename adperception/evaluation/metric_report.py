"""Metrics of detectors as text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

__all__ = ["mean_of_defined", "metric_table", "remarks"]

_SUSPICIOUS_IOU = 0.1


def mean_of_defined(values: Iterable[float]) -> float:
    """The mean of the values that are not NaN; NaN if there is none."""
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan


def metric_table(heading: str, columns: Sequence[str], rows: Iterable[tuple[str, Sequence[float]]]) -> list[str]:
    """Lines of a table of percentages with two decimals; NaN reads ``n/a``.

    Args:
        heading: above the names of the rows.
        columns: their headings.
        rows: the name and the values of each.
    """
    cells = [(heading, *columns)]
    cells += [(name, *("n/a" if math.isnan(v) else f"{v:.2f}" for v in values)) for name, values in rows]
    widths = [max(len(row[k]) for row in cells) for k in range(len(columns) + 1)]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in cells
    ]
    lines.insert(1, "-" * len(lines[0]))
    return lines


def remarks(metrics: Mapping[str, float], classes: Iterable[str], average_precisions: Sequence[str]) -> list[str]:
    """What a reader must know about each class besides its numbers: what is missing, and zeros that need a look.

    Args:
        metrics: must hold ``<class>_labels``, ``<class>_predictions`` and ``<class>_best_3d_iou``.
        classes: the classes.
        average_precisions: names, without the class, of metrics that a class with any match has above 0.
    """
    lines = []
    for name in classes:
        labels, predictions, best = (metrics[f"{name}_{key}"] for key in ("labels", "predictions", "best_3d_iou"))
        values = [metrics[f"{name}_{key}"] for key in average_precisions]
        if not labels:
            lines.append(f"{name}: n/a, there is no ground truth of this class.")
        elif not predictions:
            lines.append(f"{name}: there is no prediction of this class.")
        elif best <= _SUSPICIOUS_IOU:
            lines.append(
                f"{name}: no prediction above IoU {_SUSPICIOUS_IOU} overlaps any ground truth: usually a coordinate "
                f"problem, not a weak model (largest IoU {best:.2f} of {predictions:.0f} predictions)."
            )
        elif any(value == 0 for value in values) and not any(value > 0 for value in values):
            lines.append(
                f"{name}: AP is 0 although predictions overlap ground truth with IoU up to {best:.2f}: too loosely, "
                "or only where it does not count."
            )
    return lines
