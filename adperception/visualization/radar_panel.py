"""The pictures at the end of a radar run: its curves, and what is labelled against what is found."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from adperception.evaluation.radar_evaluation import predict_radar_frames
from adperception.models.radar.base import RadarModel, RadarPrediction
from adperception.structures import RadarBatch, RadarViews
from adperception.visualization.radar_views import RadarScene, radar_picture
from adperception.visualization.training_curves import CurveGroup, TrainingLog, read_log, write_training_curves

__all__ = ["batch_scene", "radar_curve_groups", "safe_name", "write_radar_pictures"]

_NOT_TERMS = {
    *("step", "epoch", "loss", "learning_rate", "momentum", "gradient_norm", "step_seconds", "data_wait_seconds"),
    *("skipped_steps", "peak_memory_mib"),
}


def radar_curve_groups(log: TrainingLog) -> list[CurveGroup]:
    """What to show of a radar run: loss and its terms, the metrics of both views and of centres, as logged."""
    training = TrainingLog(tuple(record for record in log.records if record.get("kind") == "train"))
    terms = tuple((name, name.replace("_", " ")) for name in training.names() if name not in _NOT_TERMS)
    views = (("rd", "range-Doppler"), ("ra", "range-angle"))
    names = log.names()
    classes = [name.removeprefix("rd_").removesuffix("_iou") for name in names if re.fullmatch(r"rd_.*_iou", name)]
    classes = [name for name in classes if name not in ("background", "mean")]
    groups = [
        CurveGroup("Loss", "loss", (("loss", "training"),), limits=(0, None)),
        CurveGroup("Terms of the training loss", "loss", terms, limits=(0, None)),
        CurveGroup(
            "Mean Dice of all classes, background included",
            "per cent",
            (*((f"{view}_mean_dice", title) for view, title in views), ("mean_dice", "mean of both")),
        ),
        CurveGroup(
            "Mean IoU without background",
            "per cent",
            tuple((f"{view}_mean_iou_no_background", title) for view, title in views),
        ),
        *(
            CurveGroup(f"IoU per class, {title}", "per cent", tuple((f"{view}_{name}_iou", name) for name in classes))
            for view, title in views
        ),
        CurveGroup(
            "Object centres",
            "per cent",
            (
                ("mean_center_AP", "mean AP"),
                ("all_center_recall", "recall"),
                ("all_center_precision", "precision"),
            ),
        ),
        CurveGroup("Learning rate", "learning rate", (("learning_rate", "learning rate"),)),
    ]
    return [group for group in groups if any(name in names for name, _ in group.curves)]


def write_radar_pictures(
    model: RadarModel, batches: Iterable[RadarBatch], log_path: Path, folder: Path, *, device: torch.device
) -> list[Path]:
    """Write the training curves and a picture per frame of ``batches``; returns the files.

    Args:
        model: the trained model on ``device``.
        batches: labelled frames on the CPU.
        log_path: ``log.jsonl`` of the run.
        folder: where the PNGs go.
        device: where to compute.
    """
    groups = radar_curve_groups(read_log(log_path))
    written = [write_training_curves(log_path, folder / "training_curves.png", groups)]
    for batch, predictions in predict_radar_frames(model, batches, device=device):
        for number, found in enumerate(predictions):
            scene = batch_scene(batch, number, model.class_names, found)
            written.append(radar_picture(folder / f"radar_{safe_name(batch.frame_ids[number])}.png", scene))
    return written


def batch_scene(
    batch: RadarBatch, number: int, class_names: tuple[str, ...], found: RadarPrediction | None = None
) -> RadarScene:
    """The newest moment of frame ``number`` of a batch, with its labels and what was found.

    Raises:
        ValueError: if the batch holds neither views nor cubes.
    """
    if batch.range_doppler is not None and batch.range_angle is not None and batch.angle_doppler is not None:
        newest = (batch.range_doppler, batch.range_angle, batch.angle_doppler)
        views = RadarViews(*(view[number, -1].cpu().numpy() for view in newest))
    elif batch.cubes is not None:
        views = RadarViews.processed(batch.cubes[number, -1].cpu().numpy())
    else:
        raise ValueError(f"frame {batch.frame_ids[number]} holds neither views nor a cube to draw.")
    objects = None if batch.objects is None else batch.objects[number]
    masks = batch.masks(number)
    name = batch.frame_ids[number]
    if objects is not None:
        name += f": {len(objects)} labelled"
    if found is not None and found.objects is not None:
        name += f", {len(found.objects)} found"
    elif found is not None and found.masks is not None and masks is not None:
        shares = (float(np.mean(m.range_angle > 0)) for m in (masks, found.masks))
        name += ", range-angle pixels {:.2%} labelled, {:.2%} found".format(*shares)
    return RadarScene(name, batch.grid, views, class_names, found, masks, objects)


def safe_name(frame_id: str) -> str:
    """A frame's name as part of a file name."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", frame_id)
