"""A metric over the share of parameters that was removed, one line per network and method."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from adperception.evaluation.seed_statistics import spread
from adperception.visualization.style import SERIES, new_figure, save

__all__ = ["write_compression_plot"]


def write_compression_plot(
    series: Mapping[str, Mapping[float, Sequence[float]]], metric: str, path: str | Path
) -> Path:
    """Mean over networks as a line, standard deviation as a band, single networks as dots.

    Args:
        series: name -> share that was removed -> metric per network; NaNs are left out.
        metric: name of the vertical axis.
        path: PNG file.
    """
    figure = new_figure(6.4, 4.2)
    axes = figure.add_subplot()
    for number, (name, by_share) in enumerate(series.items()):
        colour = SERIES[number % len(SERIES)]
        shares = sorted(by_share)
        spreads = [spread(by_share[share]) for share in shares]
        shown = [100 * share for share in shares]
        means = [s.mean for s in spreads]
        bars = [0.0 if math.isnan(s.deviation) else s.deviation for s in spreads]
        axes.plot(shown, means, color=colour, marker="o", markersize=4, lw=1.5, label=name)
        low = [mean - bar for mean, bar in zip(means, bars, strict=True)]
        high = [mean + bar for mean, bar in zip(means, bars, strict=True)]
        axes.fill_between(shown, low, high, color=colour, alpha=0.15, lw=0)
        for x, share in zip(shown, shares, strict=True):
            values = [value for value in by_share[share] if not math.isnan(value)]
            axes.plot([x] * len(values), values, ".", color=colour, alpha=0.5, markersize=5)
    axes.set_xlabel("parameters removed (%)")
    axes.set_ylabel(metric)
    axes.set_title("Mean and standard deviation over networks; dots: single networks", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return save(figure, path)
