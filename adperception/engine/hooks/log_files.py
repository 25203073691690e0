"""``log.jsonl`` and TensorBoard files: one line per logged step or evaluation, units in the names."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from adperception.engine.memory import peak_memory
from adperception.engine.mmengine_runner import Hook
from adperception.engine.step_outcome import StepOutcome
from adperception.engine.trainer import Trainer

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter

__all__ = ["LogFiles"]


class LogFiles(Hook):
    """Writes means over the steps since the last line.

    After a resume, lines of steps that will be done again are removed first.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._seconds = {"step": 0.0, "wait": 0.0}
        self._steps: int | Tensor = 0
        self._timed = 0
        self._path: Path | None = None
        self._board: SummaryWriter | None = None

    def before_run(self, trainer: Trainer) -> None:
        """Open the files."""
        if trainer.processes.is_main:
            self._open(trainer)

    def _open(self, trainer: Trainer) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter  # slow to import

        step = trainer.progress.step
        self._path = trainer.work_dir / "log.jsonl"
        if self._path.exists():
            lines = self._path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if _step_of(line) <= step]
            self._path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        self._board = SummaryWriter(str(trainer.work_dir / "logs"), purge_step=step + 1 if step else None)

    def after_step(self, trainer: Trainer, outcome: StepOutcome) -> None:
        """Add the step up; write a line if one is due."""
        if not outcome.skipped:
            for name, term in {"loss": outcome.loss, **outcome.terms}.items():
                value = term if outcome.counted is None else torch.where(outcome.counted, term, 0.0)
                self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value
            self._steps = self._steps + (1 if outcome.counted is None else outcome.counted)
        self._timed += 1
        self._seconds["step"] += outcome.step_seconds
        self._seconds["wait"] += outcome.wait_seconds
        step = trainer.progress.step
        if step % trainer.settings.log.every_steps == 0 or step == 1 or trainer.is_done or trainer.stop_signal:
            self._write_line(trainer, outcome)

    def after_run(self, trainer: Trainer) -> None:
        """Close the files."""
        if self._board is not None:
            self._board.close()

    def write_evaluation(self, step: int, epoch: int, metrics: dict[str, float]) -> None:
        """Write evaluation metrics (process 0 only)."""
        self._write({"kind": "evaluation", "step": step, "epoch": epoch, **metrics})

    def _write_line(self, trainer: Trainer, outcome: StepOutcome) -> None:
        names = sorted(self._sums)
        loss_scale = trainer.loss_scale
        # Everything that lies on the device, in one transfer.
        values = [*(self._sums[name] for name in names), outcome.gradient_norm]
        values += [] if loss_scale is None else [loss_scale.scale]
        values += [self._steps] if isinstance(self._steps, Tensor) else []
        read = torch.stack([value.double() for value in values]).tolist()
        steps = read[-1] if isinstance(self._steps, Tensor) else self._steps
        local = torch.tensor([value / max(steps, 1) for value in read[: len(names)]], dtype=torch.float64)
        if trainer.sync is None:
            local = trainer.processes.total(local)
        means = dict(zip(names, local.tolist(), strict=True))
        line: dict[str, Any] = {
            "kind": "train",
            "step": trainer.progress.step,
            "epoch": trainer.progress.step / trainer.order.steps_per_epoch,
            **means,
            "learning_rate": outcome.learning_rate,
            **({} if outcome.momentum is None else {"momentum": outcome.momentum}),
            "gradient_norm": read[len(names)],
            "step_seconds": self._seconds["step"] / self._timed,
            "data_wait_seconds": self._seconds["wait"] / self._timed,
            "skipped_steps": trainer.progress.skipped_steps,
            **(
                {}
                if loss_scale is None
                else {"scaler_skips": trainer.progress.scaler_skips, "loss_scale": read[len(names) + 1]}
            ),
            **({} if trainer.sync is None else trainer.sync.log_line()),
            **peak_memory(trainer.processes.device),
        }
        self._sums, self._seconds, self._steps, self._timed = {}, {"step": 0.0, "wait": 0.0}, 0, 0
        if trainer.processes.is_main:
            if self._path is None:  # this worker is the first one since another was lost
                self._open(trainer)
            self._write(line)

    def _write(self, line: dict[str, Any]) -> None:
        assert self._path is not None
        assert self._board is not None
        # JSON has no NaN.
        plain = {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in line.items()}
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(plain) + "\n")
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror} (writing the log)", str(self._path)) from error
        for name, value in plain.items():
            if name not in ("kind", "step") and value is not None:
                self._board.add_scalar(f"{line['kind']}/{name}", value, line["step"])


def _step_of(line: str) -> float:
    """The step of a log line; infinite for a line that a kill cut short."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError):
        return float("inf")
