"""Evaluate during a run: at the start, every so many epochs, and at the end."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence

from adperception.engine.checkpointing import save_checkpoint
from adperception.engine.console import say
from adperception.engine.data import ValidationBatches
from adperception.engine.hooks.log_files import LogFiles
from adperception.engine.mmengine_runner import Hook
from adperception.engine.step_outcome import StepOutcome
from adperception.engine.trainer import Trainer
from adperception.engine.usable_model import usable_model
from adperception.evaluation.base import Evaluation, PredictionEvaluation
from adperception.models.base import TrainableModel

__all__ = ["Evaluations"]

REHEARSAL_FRAMES = 2


class Evaluations(Hook):
    """Runs evaluations on process 0 while the others wait (without a time limit that a long one could exceed).

    Args:
        evaluations: what to run.
        batches: the collated validation batches.
        log: where the metrics are written.
    """

    def __init__(self, evaluations: Sequence[Evaluation], batches: ValidationBatches, log: LogFiles) -> None:
        self._evaluations = evaluations
        self._batches = batches
        self._log = log

    def before_run(self, trainer: Trainer) -> None:
        """Before the first step: a baseline, and a rehearsal where there cannot be one yet (detections, masks)."""
        judging = [e for e in self._evaluations if isinstance(e, PredictionEvaluation)]
        for evaluation in judging:
            folder = trainer.work_dir / "predictions" / type(evaluation).__name__
            evaluation.bind(self._batches.dataset, folder)
        if trainer.progress.step > 0 or not trainer.settings.train.evaluate_first:
            return
        self._rehearse(trainer, judging)
        others = [e for e in self._evaluations if not isinstance(e, PredictionEvaluation)]
        if others:
            self._run(trainer, others)

    def after_step(self, trainer: Trainer, outcome: StepOutcome) -> None:
        """The evaluations that are due."""
        due = [
            evaluation
            for evaluation in self._evaluations
            if trainer.is_done or (trainer.ends_epoch and trainer.epochs_done % evaluation.every_epochs == 0)
        ]
        if not due:
            return
        trainer.settle()
        try:
            self._run(trainer, due)
        except (ValueError, OSError):
            # What was learnt must not be lost with the evaluation.
            path = save_checkpoint(trainer)
            if trainer.processes.is_main:
                say(f"the evaluation failed; checkpoint written: {path} (python tools/test.py evaluates it)")
            raise

    def _rehearse(self, trainer: Trainer, judging: Sequence[PredictionEvaluation]) -> None:
        """Two frames through the whole evaluation: what is broken is found now and not after an epoch."""
        batches = dataclasses.replace(self._batches, indices=self._batches.frames[:REHEARSAL_FRAMES])

        def rehearse() -> None:
            for evaluation in judging:
                evaluation.rehearse(trainer.model, batches, device=trainer.processes.device)
                trainer.model.train()

        trainer.processes.on_main(rehearse)

    def _run(self, trainer: Trainer, due: Sequence[Evaluation]) -> None:
        def attempt() -> str:
            try:
                return json.dumps(["", self._compute(trainer, due)])
            except (ValueError, OSError) as error:  # a full disk, a label file that went away
                if trainer.processes.world_size == 1:
                    raise
                return json.dumps([str(error), {}])

        with trainer.as_evaluated():
            found = trainer.processes.main_does(attempt)
        problem: str
        metrics: dict[str, float]
        problem, metrics = json.loads(found)
        if problem:
            raise ValueError(problem)
        best = trainer.settings.checkpoint.best
        if best is not None and len(due) == len(self._evaluations) and best not in metrics:
            raise ValueError(
                f'checkpoint.best="{best}" is not a metric of the evaluations. Available: {", ".join(sorted(metrics))}.'
            )
        trainer.record_metrics(metrics)
        if trainer.processes.is_main:
            step = trainer.progress.step
            self._log.write_evaluation(step, trainer.epochs_done, metrics)
            say(f"step {step}: {_headline(due, metrics)}")
            if trainer.is_done:
                for evaluation in due:
                    if isinstance(evaluation, PredictionEvaluation):
                        say("\n" + evaluation.report(metrics) + "\n")

    def _compute(self, trainer: Trainer, due: Sequence[Evaluation]) -> dict[str, float]:
        metrics: dict[str, float] = {}
        judged: TrainableModel | None = None
        for evaluation in due:
            model = trainer.model
            if isinstance(evaluation, PredictionEvaluation):
                judged = judged or usable_model(trainer)[0]
                model = judged
            found = evaluation(model, self._batches, device=trainer.processes.device, step=trainer.progress.step)
            trainer.model.train()
            for name, value in found.items():
                if name in metrics:
                    raise ValueError(f'two evaluations give the metric "{name}"; rename one of them.')
                metrics[name] = float(value)
        return metrics


def _headline(due: Sequence[Evaluation], metrics: Mapping[str, float]) -> str:
    """What fits on a console line: the metrics that the evaluations put first, or all if they name none."""
    shown = [name for evaluation in due for name in evaluation.headline] or list(metrics)
    rest = len(metrics) - len(shown)
    line = ", ".join(f"{name} {_number(metrics[name])}" for name in shown)
    return f"{line} ({rest} more in log.jsonl)" if rest else line


def _number(value: float) -> str:
    return "n/a" if value != value else f"{value:.4g}"
