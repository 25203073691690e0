"""A metric over the share of labels, one line per method, every seed a dot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from adperception.evaluation.seed_statistics import spread
from adperception.visualization.style import SERIES, new_figure, save

__all__ = ["write_label_efficiency_plot"]

_DODGE = 1.035
"""Neighbouring methods are drawn this factor apart, so that their error bars do not hide each other."""


def write_label_efficiency_plot(
    series: Mapping[str, Mapping[float, Sequence[float]]], metric: str, path: str | Path
) -> Path:
    """Mean and standard deviation over seeds as line and bars, single runs as dots.

    Args:
        series: method -> share of the labels -> metric per seed; NaNs are left out.
        metric: name of the vertical axis.
        path: PNG file.
    """
    figure = new_figure(6.4, 4.2)
    axes = figure.add_subplot()
    for number, (name, by_fraction) in enumerate(series.items()):
        colour = SERIES[number % len(SERIES)]
        shift = _DODGE ** (number - (len(series) - 1) / 2)
        fractions = sorted(by_fraction)
        spreads = [spread(by_fraction[fraction]) for fraction in fractions]
        shown = [100 * fraction * shift for fraction in fractions]
        bars = [0.0 if math.isnan(s.deviation) else s.deviation for s in spreads]
        axes.errorbar(
            shown, [s.mean for s in spreads], yerr=bars, color=colour, marker="o", capsize=3, lw=1.5, label=name
        )
        for x, fraction in zip(shown, fractions, strict=True):
            values = [value for value in by_fraction[fraction] if not math.isnan(value)]
            axes.plot([x] * len(values), values, ".", color=colour, alpha=0.5, markersize=5)
    ticks = sorted({fraction for by_fraction in series.values() for fraction in by_fraction})
    axes.set_xscale("log")
    axes.set_xticks([100 * tick for tick in ticks], [f"{100 * tick:g} %" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("labelled training frames")
    axes.set_ylabel(metric.replace("_", " "))
    axes.set_title("Mean and standard deviation over seeds; dots: single runs", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return save(figure, path)
