"""Accuracy against steps, bytes and modelled seconds of several optimisers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adperception.visualization.style import SERIES, new_figure, save

__all__ = ["Curves", "write_optimizer_study_plot"]

_DASHES = ("-", "--", ":", "-.")


@dataclass(frozen=True)
class Curves:
    """A method over time.

    Attributes:
        steps: of every worker.
        scores: of the consensus, mean over seeds.
        bytes_sent: by all workers until then.
        seconds: modelled.
    """

    steps: Sequence[float]
    scores: Sequence[float]
    bytes_sent: Sequence[float]
    seconds: Sequence[float]


def write_optimizer_study_plot(rows: Mapping[str, Mapping[str, Curves]], metric: str, path: str | Path) -> Path:
    """Three panels for each division of the data.

    Args:
        rows: title -> method -> curves.
        metric: what the scores are.
        path: PNG file.
    """
    figure = new_figure(14.5, 3.9 * len(rows) + 0.3)
    axes = figure.subplots(len(rows), 3, squeeze=False)
    for row_axes, (title, methods) in zip(axes, rows.items(), strict=True):
        for axis, (name, heading) in zip(row_axes, _AXES.items(), strict=True):
            for number, (method, curves) in enumerate(methods.items()):
                _draw(axis, number, method, getattr(curves, name), curves.scores, positive=name == "bytes_sent")
            axis.set_xlabel(heading)
            axis.grid(alpha=0.3)
            axis.set_ylim(*_limits(methods))
            if name == "bytes_sent" and axis.lines and any(len(line.get_xdata()) for line in axis.lines):
                axis.set_xscale("log")
        row_axes[0].set_ylabel(f"{metric} of the consensus")
        row_axes[1].set_title(title, fontsize=10)
    axes[0][2].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return save(figure, path)


_AXES = {"steps": "local steps", "bytes_sent": "MB sent by all workers", "seconds": "modelled seconds"}


def _draw(
    axis: Any, number: int, method: str, across: Sequence[float], scores: Sequence[float], *, positive: bool
) -> None:
    points = [(x / 1e6 if positive else x, y) for x, y in zip(across, scores, strict=True) if x > 0 or not positive]
    axis.plot(
        [x for x, _ in points],
        [y for _, y in points],
        color=SERIES[number % len(SERIES)],
        linestyle=_DASHES[number // len(SERIES) % len(_DASHES)],
        linewidth=1.4,
        label=method,
    )


def _limits(methods: Mapping[str, Curves]) -> tuple[float, float]:
    """What the last two thirds of the curves need, so that the beginning does not flatten the differences."""
    late = [score for curves in methods.values() for score in curves.scores[len(curves.scores) // 3 :]]
    low, high = min(late), max(late)
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin
