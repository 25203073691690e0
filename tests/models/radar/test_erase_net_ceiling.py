"""How much of CARRADA's real test labels windows of ERASE-Net's size can hold."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from adperception.datasets.formats.radar_instances import instances_from_masks, radar_objects
from adperception.evaluation.radar_segmentation import segmentation_metrics
from adperception.models.radar.merge_windows import flip_range_doppler, merge_windows
from adperception.models.radar.radar_center_targets import labelled_centers
from adperception.models.radar.training_windows import object_masks, window_labels
from adperception.models.radar.window_gather import WindowCells, Windows, WindowSize
from adperception.structures import CARRADA_GRID, RadarMasks, RadarObjects

SHAPE = CARRADA_GRID.shape
FRAMES_AT_ONCE = 32


def boxes(folder: Path, sequence: str, view: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    content = json.loads((folder / "boxes" / f"{sequence}__{view}_light.json").read_text())
    return {f: (np.array(v["boxes"]).reshape(-1, 4), np.array(v["labels"])) for f, v in content.items()}


def real_frames(folder: Path) -> list[tuple[RadarMasks, RadarObjects]]:
    stored = np.load(folder / "test_masks_and_tmvanet_predictions.npz")
    frames = []
    for sequence in sorted({key.split("__")[1] for key in stored.files}):
        doppler_boxes, angle_boxes = (boxes(folder, sequence, v) for v in ("range_doppler", "range_angle"))
        both = (stored[f"{view}__{sequence}__gt"] for view in ("range_doppler", "range_angle"))
        for number, rd, ra in zip(stored[f"range_doppler__{sequence}__frame"], *both, strict=True):
            masks, name = RadarMasks(rd, ra), f"{number:06d}"
            objects = RadarObjects.empty()
            if name in doppler_boxes:
                of_doppler, of_angle = doppler_boxes[name], angle_boxes[name]
                found = instances_from_masks(masks, of_doppler[0], of_angle[0], of_doppler[1], of_angle[1])
                objects = radar_objects(found, SHAPE)
            frames.append((masks, objects))
    return frames


def merged(frames: list[tuple[RadarMasks, RadarObjects]], size: WindowSize) -> tuple[torch.Tensor, ...]:
    """True masks, and what is left of them after windows around true centres are cut out and merged."""
    doppler = torch.from_numpy(np.stack([m.range_doppler for m, _ in frames])).long()
    angle = torch.from_numpy(np.stack([m.range_angle for m, _ in frames])).long()
    centers = labelled_centers([o for _, o in frames], torch.device("cpu"))
    cell = centers.cells.round().long()
    windows = Windows(centers.frames, cell[:, 0], cell[:, 1], cell[:, 2] % SHAPE[2], cell.new_zeros(len(cell), 0))
    cells = WindowCells.of(windows, size, SHAPE)
    masks = object_masks(flip_range_doppler(doppler), angle, centers)
    labels = window_labels(masks, torch.arange(len(cell)), cells)
    sure = (torch.stack([label == c for c in (1, 2, 3)], dim=1).float() for label in labels)
    return doppler, angle, *merge_windows(*sure, cells, len(frames), SHAPE)


def test_perfect_centres_and_masks_reach_the_ceiling(real_data: Path) -> None:
    """Fact sheet 3.8: at least 99.7 mIoU in both views on all 2,106 scored test frames."""
    frames = real_frames(real_data / "radar" / "carrada")
    assert len(frames) == 2106
    matrices = {view: np.zeros((4, 4), dtype=np.int64) for view in ("rd", "ra")}
    for masks, objects in frames:
        if not len(objects):  # no window, all background
            assert not masks.range_doppler.any()
            matrices["rd"][0, 0] += masks.range_doppler.size
            matrices["ra"][0, 0] += masks.range_angle.size
    frames = [frame for frame in frames if len(frame[1])]
    for first in range(0, len(frames), FRAMES_AT_ONCE):
        true_rd, true_ra, rd, ra = merged(frames[first : first + FRAMES_AT_ONCE], WindowSize.for_shape(SHAPE))
        for view, truth, found in (("rd", true_rd, rd), ("ra", true_ra, ra)):
            matrices[view] += torch.bincount((truth * 4 + found).flatten(), minlength=16).view(4, 4).numpy()
    metrics = segmentation_metrics(matrices, ("pedestrian", "cyclist", "car"))
    assert metrics["rd_mean_iou"] >= 99.7, metrics
    assert metrics["ra_mean_iou"] >= 99.7, metrics
    assert metrics["rd_mean_iou_no_background"] >= 99.7
    assert metrics["ra_mean_iou_no_background"] >= 99.7
