"""Metrics of several models side by side, every seed a dot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adperception.evaluation.seed_statistics import spread
from adperception.visualization.style import SERIES, new_figure, save

__all__ = ["write_model_comparison_plot"]

Series = Mapping[str, Mapping[str, Sequence[float]]]

_WIDTH = 0.7
"""Of a group of models, where the next group is 1 away."""


def write_model_comparison_plot(panels: Mapping[str, Mapping[str, Series]], path: str | Path) -> Path:
    """Mean and standard deviation over seeds as marks and bars, single runs as dots.

    Args:
        panels: title of a row -> title of a column -> model -> metric -> values over seeds (per cent); NaNs are left
            out, and a model without values leaves a gap.
        path: PNG file.
    """
    columns = max(len(row) for row in panels.values())
    figure = new_figure(5.2 * columns, 3.6 * len(panels) + 0.4)
    axes = figure.subplots(len(panels), columns, squeeze=False, sharey=True)
    for row_axes, (row_title, row) in zip(axes, panels.items(), strict=True):
        for axis, (title, models) in zip(row_axes, row.items(), strict=True):
            _draw(axis, models)
            axis.set_title(f"{title}\n{row_title}", fontsize=10)
        row_axes[0].set_ylabel("per cent")
        if any(len(values) for models in row.values() for metrics in models.values() for values in metrics.values()):
            row_axes[0].legend(frameon=False, fontsize=9)
    figure.suptitle("Mean and standard deviation over seeds; dots: single runs", fontsize=10)
    return save(figure, path)


def _draw(axis: Any, models: Series) -> None:
    metrics = list(next(iter(models.values())))
    for number, (name, by_metric) in enumerate(models.items()):
        colour = SERIES[number % len(SERIES)]
        shift = _WIDTH * ((number + 0.5) / len(models) - 0.5)
        label: str | None = name
        for position, metric in enumerate(metrics):
            values = [value for value in by_metric[metric] if not math.isnan(value)]
            if not values:
                continue
            over_seeds = spread(values)
            deviation = 0.0 if math.isnan(over_seeds.deviation) else over_seeds.deviation
            x = position + shift
            axis.errorbar(
                x, over_seeds.mean, yerr=deviation, color=colour, marker="_", markersize=14, capsize=3, label=label
            )
            axis.plot([x] * len(values), values, ".", color=colour, alpha=0.5)
            label = None
    axis.set_xticks(range(len(metrics)), [metric.replace(", ", ",\n") for metric in metrics], fontsize=8)
    axis.set_ylim(0, 100)
    axis.grid(axis="y", alpha=0.3)
