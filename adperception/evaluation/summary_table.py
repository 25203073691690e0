"""A few numbers before and after training, as text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

__all__ = ["PRETRAINING_ROWS", "summary_table"]

PRETRAINING_ROWS: tuple[tuple[str, str], ...] = (
    ("val_loss", "validation loss"),
    ("effective_rank", "effective rank"),
    ("k_means_foreground_iou", "k-means foreground IoU"),
)
"""Measure and heading of each row for a pre-training run."""


def summary_table(
    before: Mapping[str, float], after: Mapping[str, float], rows: Sequence[tuple[str, str]] = PRETRAINING_ROWS
) -> str:
    """Lines of text with the columns measure, before, after and change; an undefined value reads ``n/a``.

    Args:
        before: measures of the untrained model, e.g. of ``RepresentationEvaluation``.
        after: the same measures of the trained model.
        rows: ``(key, heading)`` of the measures to show.

    Raises:
        ValueError: if a measure is missing on either side.
    """
    for name, values in (("before", before), ("after", after)):
        missing = [key for key, _ in rows if key not in values]
        if missing:
            raise ValueError(f"summary_table: {name} has no {', '.join(missing)}; it has {', '.join(sorted(values))}.")
    cells = [("", "before", "after", "change")]
    for key, heading in rows:
        change = after[key] - before[key]
        cells.append((heading, _number(before[key]), _number(after[key]), _number(change, "+")))
    widths = [max(len(row[column]) for row in cells) for column in range(4)]
    lines = []
    for heading, *numbers in cells:
        columns = [number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True)]
        lines.append("  ".join([heading.ljust(widths[0]), *columns]))
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(lines)


def _number(value: float, sign: str = "") -> str:
    if math.isnan(value):
        return "n/a"
    return f"{value:{sign}.2f}" if abs(value) >= 10 else f"{value:{sign}.4f}"
