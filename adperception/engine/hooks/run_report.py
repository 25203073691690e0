"""At the end of a run: a table of what changed, and pictures."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from adperception.engine.console import say
from adperception.engine.mmengine_runner import Hook
from adperception.engine.trainer import Trainer
from adperception.evaluation.pretraining_model import is_pretraining_model
from adperception.evaluation.summary_table import PRETRAINING_ROWS, summary_table
from adperception.visualization.pretraining_panel import write_run_pictures
from adperception.visualization.training_curves import TrainingLog, read_log, write_training_curves

__all__ = ["RunReport", "before_and_after"]


class RunReport(Hook):
    """Prints the measures before and after training and writes PNGs into ``panels/`` of the work folder.

    It comes after everything is saved; a picture that cannot be drawn is mentioned and does not fail the run.

    Args:
        batches: re-iterable of collated validation batches, or ``None`` for curves only.
    """

    def __init__(self, batches: Iterable[Any] | None) -> None:
        self._batches = batches

    def after_run(self, trainer: Trainer) -> None:
        """Report, on process 0 and if the run is complete."""
        if not trainer.is_done or not trainer.processes.is_main:
            return
        log_path, folder = trainer.work_dir / "log.jsonl", trainer.work_dir / "panels"
        try:
            table = before_and_after(read_log(log_path))
            if table:
                say("\n" + table + "\n")
            for path in self._pictures(trainer, log_path, folder):
                say(f"wrote {path}")
        except (ValueError, OSError) as error:
            say(f"the run is complete and saved, but its report is not: {error}")

    def _pictures(self, trainer: Trainer, log_path: Path, folder: Path) -> list[Path]:
        if self._batches is None or not is_pretraining_model(trainer.model):
            return [write_training_curves(log_path, folder / "training_curves.png")]
        device, title = trainer.processes.device, trainer.config.name
        return write_run_pictures(trainer.model, self._batches, log_path, folder, device=device, title=title)


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
