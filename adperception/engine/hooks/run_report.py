"""At the end of a run: weights for use, a table of what changed, pictures."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adperception.checkpoint.save import write_tensors
from adperception.engine.checkpointing import describe_weights
from adperception.engine.console import say
from adperception.engine.data import ValidationBatches
from adperception.engine.mmengine_runner import Hook
from adperception.engine.results import write_results
from adperception.engine.trainer import Trainer
from adperception.engine.usable_model import usable_model
from adperception.evaluation.batch_norm_statistics import with_reestimated_batch_norm
from adperception.evaluation.predictions import predict_frames
from adperception.evaluation.pretraining_model import is_pretraining_model
from adperception.evaluation.summary_table import PRETRAINING_ROWS, summary_table
from adperception.models.base import DetectionModel, PredictionModel
from adperception.models.radar.base import RadarModel
from adperception.structures import LidarBatch
from adperception.visualization.detections_bev import detections_picture
from adperception.visualization.pretraining_panel import write_run_pictures
from adperception.visualization.radar_panel import write_radar_pictures
from adperception.visualization.rounds_plot import has_rounds, write_rounds
from adperception.visualization.training_curves import TrainingLog, read_log, write_training_curves

__all__ = ["RunReport", "before_and_after"]

WEIGHTS_FILE = "weights.safetensors"
STATISTICS_BATCHES = 15
PICTURES = 3
SHOWN_SCORE = 0.3


class RunReport(Hook):
    """At the end of a complete run: weights for use, the measures before and after, pictures.

    ``weights.safetensors`` holds the final weights. A pre-training model's batch-norm statistics are re-estimated for
    it, because running ones lag behind a short run and make its maps look collapsed; a detector's if the config says
    so (``train.batch_norm_statistics``). Checkpoints keep the running ones.
    All this comes after everything is saved: what cannot be written is mentioned and does not fail the run.

    Args:
        batches: re-iterable of collated validation batches, or ``None``: running statistics and curves only.
    """

    def __init__(self, batches: Iterable[Any] | None) -> None:
        self._batches = batches

    def after_run(self, trainer: Trainer) -> None:
        """Report, on process 0 and if the run is complete."""
        if not trainer.is_done or not trainer.processes.is_main:
            return
        log_path, folder = trainer.work_dir / "log.jsonl", trainer.work_dir / "panels"
        try:
            model, statistics = self._final_model(trainer)
            weights = trainer.work_dir / WEIGHTS_FILE
            metadata = {**describe_weights(trainer), "batch_norm_statistics": statistics}
            write_tensors(weights, model.state_dict(), metadata)
            say(f"wrote {write_results(trainer)}")
            log = read_log(log_path)
            table = before_and_after(log)
            if table:
                say("\n" + table + "\n")
            say(f"wrote {weights} (batch-norm statistics: {statistics})")
            for path in self._pictures(trainer, model, log_path, folder):
                say(f"wrote {path}")
            if has_rounds(log):
                say(f"wrote {write_rounds(log_path, folder / 'rounds.png')}")
        except (ValueError, OSError) as error:
            say(f"the run is complete and saved, but its report is not: {error}")

    def _final_model(self, trainer: Trainer) -> tuple[nn.Module, str]:
        if isinstance(trainer.model, PredictionModel):
            return usable_model(trainer)
        running = "running averages" if trainer.sync is None else usable_model(trainer)[1]
        if self._batches is None or not hasattr(trainer.model, "encode"):
            return trainer.model, running
        model = with_reestimated_batch_norm(
            trainer.model, self._batches, device=trainer.processes.device, count=STATISTICS_BATCHES
        )
        return model, f"re-estimated over {STATISTICS_BATCHES} validation batches"

    def _pictures(self, trainer: Trainer, model: nn.Module, log_path: Path, folder: Path) -> list[Path]:
        if self._batches is not None and isinstance(model, RadarModel):
            frames_shown = spread_frames(self._batches, PICTURES)
            return write_radar_pictures(model, frames_shown, log_path, folder, device=trainer.processes.device)
        if self._batches is not None and isinstance(model, DetectionModel):
            frames = draw_detections(model, self._batches, folder, trainer.processes.device)
            return [write_training_curves(log_path, folder / "training_curves.png"), *frames]
        if self._batches is None or not is_pretraining_model(model):
            return [write_training_curves(log_path, folder / "training_curves.png")]
        device, title = trainer.processes.device, trainer.config.name
        return write_run_pictures(model, self._batches, log_path, folder, device=device, title=title)


def spread_frames(batches: Iterable[Any], count: int) -> Iterable[Any]:
    """A few validation frames spread evenly over the split: neighbours of a recording look alike."""
    if not isinstance(batches, ValidationBatches):
        return batches
    total = len(batches.frames)
    positions = [(2 * number + 1) * total // (2 * count) for number in range(min(count, total))]
    return dataclasses.replace(batches, indices=[batches.frames[position] for position in positions])


def draw_detections(
    model: DetectionModel, batches: Iterable[LidarBatch], folder: Path, device: torch.device
) -> list[Path]:
    """Pictures of the first validation frames: what is labelled, and what the model finds with some confidence."""
    folder.mkdir(parents=True, exist_ok=True)
    limits = model.grid.point_cloud_range
    written: list[Path] = []
    for batch in batches:
        found = predict_frames(model, [batch], device=device)
        for number, (frame_id, detections) in enumerate(found.items()):
            if len(written) == PICTURES:
                return written
            shown = detections.select(detections.scores >= SHOWN_SCORE)
            truth = None if batch.boxes is None else batch.boxes[number]
            name = re.sub(r"[^A-Za-z0-9_.-]+", "_", frame_id)
            title = f"{frame_id}: scores from {SHOWN_SCORE:g}"
            xyz = batch.points[number].cpu().numpy()
            written.append(detections_picture(folder / f"detections_{name}.png", xyz, limits, shown, truth, title))
    return written


def before_and_after(log: TrainingLog) -> str:
    """The table of the first and the last evaluation of a run; empty if there are not two, or nothing to compare."""
    evaluations = [record for record in log.records if record.get("kind") == "evaluation"]
    if len(evaluations) < 2:
        return ""
    # JSON has no NaN: an undefined value was written as null.
    before, after = (
        {name: float("nan") if value is None else value for name, value in record.items()}
        for record in (evaluations[0], evaluations[-1])
    )
    rows = [row for row in PRETRAINING_ROWS if row[0] in before and row[0] in after]
    return summary_table(before, after, rows) if rows else ""
