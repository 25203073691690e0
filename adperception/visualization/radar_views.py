"""Range-Doppler and range-angle views side by side: what is there, and what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import patheffects
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from adperception.models.radar.base import CARRADA_CLASSES, RadarPrediction
from adperception.structures import RadarGrid, RadarMasks, RadarObjects, RadarViews
from adperception.visualization.style import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION, new_figure, save

__all__ = ["RadarScene", "draw_radar_scene", "mask_outline", "radar_colour", "radar_picture"]

_COLOURS = {
    **dict.fromkeys(("pedestrian", "person"), PURPLE),
    **dict.fromkeys(("cyclist", "bicycle"), GREEN),
    "car": VERMILION,
    "motorcycle": SKY,
    "bus": ORANGE,
    "truck": BLUE,
}
_OTHER_COLOUR = "#000000"
_FILL = 0.5
_LIGHTEST_PERCENTILE, _STRONGEST_PERCENTILE = 2.0, 99.9
_ANGLE_TICKS = (-60, -40, -20, -10, 0, 10, 20, 40, 60)
_HALO = [patheffects.withStroke(linewidth=2.5, foreground="white")]


@dataclass(frozen=True)
class RadarScene:
    """One moment to be drawn.

    Attributes:
        name: above the picture.
        grid: what the cells mean.
        views: the views of this moment in decibels (no time axis).
        class_names: foreground classes.
        found: what a model found; ``None``: nothing to compare.
        masks: labelled classes of the pixels, if there are any.
        objects: labelled objects, if there are any.
    """

    name: str
    grid: RadarGrid
    views: RadarViews
    class_names: Sequence[str] = CARRADA_CLASSES
    found: RadarPrediction | None = None
    masks: RadarMasks | None = None
    objects: RadarObjects | None = None

    def levels(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Decibels shown as white and as black, in the range-Doppler and in the range-angle view."""
        return _levels(self.views.range_doppler), _levels(self.views.range_angle)


def radar_colour(name: str) -> str:
    """The colour of a class in radar pictures."""
    return _COLOURS.get(name.lower(), _OTHER_COLOUR)


def radar_picture(path: str | Path, scene: RadarScene) -> Path:
    """Write a picture of a moment.

    Found masks are filled and found centres are crosses with their score, both in the colour of their class; labelled
    masks are outlined and labelled centres are circles.

    Args:
        path: the PNG to write.
        scene: what to draw.
    """
    figure = new_figure(11.0, 5.6)
    draw_radar_scene(figure, scene)
    return save(figure, path)


def draw_radar_scene(
    figure: Any, scene: RadarScene, levels: tuple[tuple[float, float], tuple[float, float]] | None = None
) -> None:
    """Draw both views into an empty figure.

    Args:
        figure: of ``new_figure``.
        scene: what to draw.
        levels: see ``RadarScene.levels``, to keep them over a sequence; ``None``: the scene's own.
    """
    left, right = figure.subplots(1, 2, sharey=True)
    levels = scene.levels() if levels is None else levels
    grid, found = scene.grid, scene.found
    found_masks = None if found is None else found.masks
    found_objects = None if found is None else found.objects

    def masks_of(name: str) -> tuple[NDArray[np.uint8] | None, NDArray[np.uint8] | None]:
        return (
            None if found_masks is None else getattr(found_masks, name),
            None if scene.masks is None else getattr(scene.masks, name),
        )

    step = grid.doppler_bin_mps
    velocities = ((-grid.doppler_bins / 2 - 0.5) * step, (grid.doppler_bins / 2 - 0.5) * step)
    _draw_view(left, scene, scene.views.range_doppler, velocities, levels[0], masks_of("range_doppler"))
    # Labels pair rows of the two views with the sum range_bins, see flip_label_row: one cell farther here.
    _draw_centers(left, scene, found_objects, 2, grid.range_bin_m)
    left.set(xlabel="radial velocity (m/s), approaching is positive", ylabel="range (m)")
    left.set_title("range-Doppler", fontsize="medium")

    def flipped(mask: NDArray[np.uint8] | None) -> NDArray[np.uint8] | None:
        return None if mask is None else mask[::-1]

    columns = (-0.5, grid.azimuth_bins - 0.5)
    found_mask, true_mask = masks_of("range_angle")
    view = scene.views.range_angle[::-1]
    _draw_view(right, scene, view, columns, levels[1], (flipped(found_mask), flipped(true_mask)))
    _draw_centers(right, scene, found_objects, 1, 0.0)
    ticks = [(degrees, float(grid.azimuth_column(degrees))) for degrees in _ANGLE_TICKS]
    ticks = [(degrees, column) for degrees, column in ticks if columns[0] <= column <= columns[1]]
    right.set_xticks([column for _, column in ticks], [f"{degrees:g}" for degrees, _ in ticks])
    right.set(xlabel="azimuth (degrees)")
    right.set_title("range-angle", fontsize="medium")
    handles = _legend(scene)
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 5), fontsize="small")
    figure.suptitle(scene.name, fontsize="medium")


def mask_outline(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """``(E, 2, 2)`` edges, as (column, row) from and to, between cells inside and outside a mask; cell (0, 0) covers
    0 to 1 both ways."""
    padded = np.pad(mask.astype(np.int8), 1)
    row, column = np.nonzero(np.diff(padded, axis=1)[1:-1])
    upright = np.stack([np.stack([column, row], 1), np.stack([column, row + 1], 1)], 1)
    row, column = np.nonzero(np.diff(padded, axis=0)[:, 1:-1])
    level = np.stack([np.stack([column, row], 1), np.stack([column + 1, row], 1)], 1)
    return np.concatenate([upright, level]).astype(np.float64)


def _levels(view: NDArray[np.float32]) -> tuple[float, float]:
    low, high = (float(v) for v in np.percentile(view, [_LIGHTEST_PERCENTILE, _STRONGEST_PERCENTILE]))
    # The strongest echoes stay dark grey: on black the colours of masks could not be told apart.
    return low, high + (high - low) / 2


def _draw_view(
    axes: Any,
    scene: RadarScene,
    view: NDArray[np.float32],
    horizontal: tuple[float, float],
    levels: tuple[float, float],
    masks: tuple[NDArray[np.uint8] | None, NDArray[np.uint8] | None],
) -> None:
    """One view with row 0 near: decibels in grey, found pixels filled, labelled ones outlined."""
    metres = scene.grid.range_bin_m
    vertical = (-0.5 * metres, (len(view) - 0.5) * metres)
    style = {"extent": (*horizontal, *vertical), "origin": "lower", "aspect": "auto", "interpolation": "nearest"}
    axes.imshow(view, cmap="gray_r", vmin=levels[0], vmax=levels[1], **style)
    scale = ((horizontal[1] - horizontal[0]) / view.shape[1], metres)
    found, truth = masks
    if found is not None:
        fill = np.zeros((*found.shape, 4))
        for number, name in enumerate(scene.class_names, 1):
            fill[found == number] = to_rgba(radar_colour(name), _FILL)
        axes.imshow(fill, **style)
    if truth is not None:
        for number, name in enumerate(scene.class_names, 1):
            edges = mask_outline(truth == number) * scale + (horizontal[0], vertical[0])
            axes.add_collection(LineCollection(list(edges), colors=radar_colour(name), linewidths=1.4))
    axes.set(xlim=horizontal, ylim=vertical)


def _draw_centers(axes: Any, scene: RadarScene, found: RadarObjects | None, axis: int, shift_m: float) -> None:
    """Circles at labelled, crosses at found centres; ``axis`` of the cells is the horizontal one."""
    for objects, marker in ((scene.objects, "o"), (found, "X")):
        if objects is None or not len(objects):
            continue
        x = scene.grid.velocity_mps(objects.cells[:, 2]) if axis == 2 else objects.cells[:, 1]
        y = objects.range_m(scene.grid) + shift_m
        colours = [radar_colour(scene.class_names[number - 1]) for number in objects.class_ids]
        if marker == "o":
            axes.scatter(x, y, s=70, facecolors="none", edgecolors="white", linewidths=3.0, zorder=4)
            axes.scatter(x, y, s=70, facecolors="none", edgecolors=colours, linewidths=1.4, zorder=4)
            continue
        axes.scatter(x, y, s=48, c=colours, marker=marker, edgecolors="white", linewidths=0.8, zorder=5)
        for left, up, score in zip(x, y, objects.scores, strict=True):
            text = axes.annotate(
                f"{score:.2f}", (left, up), (6, 5), textcoords="offset points", fontsize=7.5, zorder=6, clip_on=True
            )
            text.set_path_effects(_HALO)


def _legend(scene: RadarScene) -> list[Any]:
    """A patch per class, and what the marks mean."""
    handles: list[Any] = [Patch(color=radar_colour(name), label=name) for name in scene.class_names]
    if scene.masks is not None:
        handles.append(Patch(facecolor="none", edgecolor="black", label="labelled pixels"))
    if scene.found is not None and scene.found.masks is not None:
        handles.append(Patch(facecolor=(0, 0, 0, _FILL), edgecolor="none", label="found pixels"))
    mark: dict[str, Any] = {"linestyle": "", "markersize": 8, "markeredgecolor": "black"}
    if scene.objects is not None:
        handles.append(Line2D([], [], marker="o", markerfacecolor="none", label="labelled centre", **mark))
    if scene.found is not None and scene.found.objects is not None:
        handles.append(Line2D([], [], marker="X", markerfacecolor="black", label="found centre, score", **mark))
    return handles
