"""Save when the config says so, at a new best value, at a signal and at the end."""

from __future__ import annotations

from adperception.engine.checkpointing import save_checkpoint
from adperception.engine.console import say
from adperception.engine.mmengine_runner import Hook
from adperception.engine.step_outcome import StepOutcome
from adperception.engine.trainer import Trainer

__all__ = ["Checkpoints"]


class Checkpoints(Hook):
    """Writes checkpoints. Comes after the evaluations, so that the best value is known."""

    def after_step(self, trainer: Trainer, outcome: StepOutcome) -> None:
        """Save if one of the reasons holds."""
        if not (_is_due(trainer) or trainer.is_done or trainer.stop_signal):
            return
        path = save_checkpoint(trainer)
        if trainer.processes.is_main and (trainer.is_done or trainer.stop_signal):
            say(f"checkpoint written: {path}")


def _is_due(trainer: Trainer) -> bool:
    settings, step = trainer.settings.checkpoint, trainer.progress.step
    if trainer.progress.best_step == step:
        return True
    if settings.every_steps is not None and step % settings.every_steps == 0:
        return True
    every_epochs = settings.every_epochs or (1 if settings.every_steps is None else None)
    return every_epochs is not None and trainer.ends_epoch and trainer.epochs_done % every_epochs == 0
