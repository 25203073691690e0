"""Moments of a radar recording as an animated picture."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from adperception.visualization.radar_views import RadarScene, draw_radar_scene
from adperception.visualization.style import new_figure

__all__ = ["radar_sequence"]


def radar_sequence(
    path: str | Path, scenes: Iterable[RadarScene], frames_per_second: float = 10.0, dots_per_inch: int = 80
) -> Path:
    """Write an animated GIF or PNG; the grey levels are those of the first moment throughout.

    Args:
        path: ending in ``.gif``, or in ``.png`` or ``.apng`` (more colours, larger).
        scenes: the moments, drawn one at a time.
        frames_per_second: CARRADA has 10. GIF counts in hundredths of a second.
        dots_per_inch: size of the picture.

    Raises:
        ValueError: for another ending, or if there is no moment.
    """
    path = Path(path)
    if path.suffix.lower() not in (".gif", ".png", ".apng"):
        raise ValueError(f"{path}: an animated sequence is a .gif, .png or .apng file.")
    images, levels = [], None
    for scene in scenes:
        levels = scene.levels() if levels is None else levels
        figure = new_figure(11.0, 5.6)
        figure.set_dpi(dots_per_inch)
        draw_radar_scene(figure, scene, levels)
        images.append(_rendered(figure))
    if not images:
        raise ValueError(f"{path}: there is no frame to draw.")
    path.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"save_all": True, "append_images": images[1:], "loop": 0}
    options["duration"] = round(1000 / frames_per_second)
    if path.suffix.lower() == ".gif":
        # One palette for all frames, so that colours do not flicker.
        palette = images[0].quantize(colors=256, method=Image.Quantize.MEDIANCUT)
        images = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
        options["append_images"] = images[1:]
        images[0].save(path, format="GIF", **options)
    else:
        images[0].save(path, format="PNG", **options)
    return path


def _rendered(figure: Any) -> Image.Image:
    figure.canvas.draw()
    return Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")
