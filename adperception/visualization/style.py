"""Colours and canvases shared by all pictures: no window system, colour-blind-safe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = ["BLUE", "GREEN", "GREY", "ORANGE", "PURPLE", "SERIES", "SKY", "VERMILION", "new_figure", "save"]

# Okabe and Ito, "Color Universal Design" (2008).
BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
GREY = "#DDDDDD"
SERIES = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, "#000000")


def new_figure(width_inches: float, height_inches: float) -> Any:
    """A matplotlib figure on the Agg canvas, without pyplot and its global state."""
    figure = Figure(figsize=(width_inches, height_inches), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Any, path: str | Path, dots_per_inch: int = 110) -> Path:
    """Write ``figure`` as PNG, making the folder if needed; the same figure gives the same bytes."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=dots_per_inch, metadata={"Software": None})
    return path
