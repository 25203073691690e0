"""The model as it is evaluated and given away: trained weights with batch-norm statistics that fit them."""

from __future__ import annotations

from typing import Any

from adperception.engine.data import ValidationBatches, spread_indices
from adperception.engine.trainer import STATISTICS_FRAMES, Trainer
from adperception.evaluation.batch_norm_statistics import with_reestimated_batch_norm
from adperception.models.base import TrainableModel

__all__ = ["usable_model"]


def usable_model(trainer: Trainer) -> tuple[TrainableModel, str]:
    """The model to evaluate, and in words where its batch-norm statistics come from.

    With ``train.batch_norm_statistics = "re-estimated"`` it is a copy in evaluation mode, its statistics averaged over
    training frames spread evenly over the split; no label of another frame is touched.
    """
    if trainer.sync is not None:
        frames = len(spread_indices(len(trainer.dataset), STATISTICS_FRAMES))
        return trainer.model, f"re-estimated over {frames} training frames, pooled over the workers"
    if trainer.settings.train.batch_norm_statistics == "running":
        return trainer.model, "running averages"
    batches = training_frames(trainer, STATISTICS_FRAMES)
    model = with_reestimated_batch_norm(trainer.model, batches, device=trainer.processes.device, count=len(batches))
    return model, f"re-estimated over {len(batches.frames)} training frames"


def training_frames(trainer: Trainer, frames: int) -> ValidationBatches:
    """Batches of training frames, augmented as in training, the same ones whenever it is called."""
    indices = spread_indices(len(trainer.dataset), frames)
    collate: Any = trainer.model.collate(training=True)
    return ValidationBatches(
        dataset=trainer.dataset,
        batch_size=trainer.settings.train.batch_size,
        seed=trainer.settings.seed,
        collate=collate,
        workers=0,
        device=trainer.processes.device,
        indices=indices,
    )
