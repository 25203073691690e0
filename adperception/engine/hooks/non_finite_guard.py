"""Never apply a bad update: stop (or skip and count) at the first NaN or infinity, and say where it came from.

Where steps do not wait for the device (``train.check_finite_every``), the device leaves out a bad update by itself; the
host reads the flags of several steps together, and acts on them then.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adperception.checkpoint.save import write_tensors
from adperception.engine.console import say
from adperception.engine.data import frame_names
from adperception.engine.mmengine_runner import Hook
from adperception.engine.randomness import item_rng
from adperception.engine.step_outcome import StepOutcome
from adperception.engine.trainer import Trainer

__all__ = ["NonFiniteError", "NonFiniteGuard"]


SMALLEST_LOSS_SCALE = 2.0**-16
"""Below it, what overflows is not the scale's fault."""


class NonFiniteError(ValueError):
    """A loss or gradient is NaN or infinite."""


class NonFiniteGuard(Hook):
    """Acts on ``train.on_non_finite``; all processes act alike, unless they train apart.

    With ``"skip"``, buffers (batch-norm statistics) go back to their values from before the step as well. A step that
    the loss scale of float16 leaves out is counted and nothing else.
    """

    def __init__(self) -> None:
        self._buffers: list[Tensor] = []
        self._unread: list[StepOutcome] = []

    def before_run(self, trainer: Trainer) -> None:
        """Remember the buffers if steps may be skipped."""
        self._remember(trainer)
        trainer.settle = lambda: self._read(trainer)
        wanted = trainer.settings.train.check_finite_every
        if wanted is not None and wanted > trainer.check_finite_every and trainer.processes.is_main:
            say(
                f"train.check_finite_every={wanted}: {type(trainer.optimizer).__name__} cannot leave out an update by "
                "itself, so every step is checked. Set optimizer.fused=True."
            )

    def before_update(self, trainer: Trainer, outcome: StepOutcome) -> None:
        """Raise, or mark the step as skipped, if any process saw a non-finite value and the host knows of it.

        Raises:
            NonFiniteError: with the same message on every process.
        """
        if outcome.finite is not None:
            self._judge(trainer, outcome)
            if outcome.skipped:
                with torch.no_grad():
                    for buffer, before in zip(trainer.model.buffers(), self._buffers, strict=True):
                        buffer.copy_(before)

    def after_update(self, trainer: Trainer, outcome: StepOutcome) -> None:
        """Put back the buffers where the device left out the update; look at the flags if a read is due.

        Raises:
            NonFiniteError: as ``before_update``.
        """
        outcome.batches = ()
        if outcome.finite is None:
            assert outcome.counted is not None
            with torch.no_grad():
                for buffer, before in zip(trainer.model.buffers(), self._buffers, strict=False):
                    buffer.copy_(torch.where(outcome.counted, buffer, before))
            self._unread.append(outcome)
        if trainer.read_is_due:
            self._read(trainer)
        self._remember(trainer)

    def _read(self, trainer: Trainer) -> None:
        """Read the flags of the steps since the last time in one transfer, and act on them."""
        unread, self._unread = self._unread, []
        if not unread:
            return
        flags = torch.stack([outcome.flags for outcome in unread]).tolist()
        for outcome, (loss_bad, gradient_bad) in zip(unread, flags, strict=True):
            outcome.resolve(loss_bad, gradient_bad, scaled=trainer.loss_scale is not None)
            self._judge(trainer, outcome)

    def _judge(self, trainer: Trainer, outcome: StepOutcome) -> None:
        """Raise for a step that is known to be bad, or count it; count one that the loss scale left out."""
        if outcome.finite:
            if outcome.overflowed:
                self._count_overflow(trainer, outcome)
            return
        gather = trainer.processes.gather_text if trainer.sync is None else _alone
        # One process's NaN is in everyone's gradient, so the gradient is only to blame if every loss is finite.
        findings = gather(_describe_losses(trainer, outcome))
        if not any(findings):
            findings = gather(_describe_gradient(trainer, outcome))
        message = f"step {outcome.step + 1}: " + "; ".join(text for text in findings if text)
        if trainer.settings.train.on_non_finite == "stop":
            raise NonFiniteError(
                f"{message}. The parameters were not changed. Look at the frames (tools/browse.py), lower "
                "optimizer.lr, or set train.on_non_finite=skip."
            )
        outcome.skipped = True
        trainer.progress.skipped_steps += 1
        if trainer.processes.is_main:
            say(f"warning: {message}. Skipped ({trainer.progress.skipped_steps} skipped so far).")

    def _count_overflow(self, trainer: Trainer, outcome: StepOutcome) -> None:
        trainer.progress.scaler_skips += 1
        assert trainer.loss_scale is not None
        scale = float(trainer.loss_scale.scale)
        if scale < SMALLEST_LOSS_SCALE:
            raise NonFiniteError(
                f"step {outcome.step + 1}: gradients overflow float16 although the loss scale is down to {scale:.3g}, "
                f"after {trainer.progress.scaler_skips} steps without an update. Use train.amp=bf16 or off, or lower "
                "optimizer.lr."
            )

    def _remember(self, trainer: Trainer) -> None:
        if trainer.settings.train.on_non_finite == "skip":
            self._buffers = [buffer.detach().clone() for buffer in trainer.model.buffers()]


def _alone(text: str) -> list[str]:
    """A process that trains apart asks nobody."""
    return [text]


def _batch(trainer: Trainer, outcome: StepOutcome, number: int) -> Any:
    """Batch ``number`` of a step of this process; made once more if the step is over (frames are deterministic)."""
    if outcome.batches:
        return outcome.batches[number]
    seed = trainer.settings.seed
    items = outcome.micro_batches[number].items
    frames = [trainer.dataset.get(index, item_rng(seed, epoch, index)) for epoch, index in items]
    return trainer.model.collate(training=True)(frames)


def _describe_losses(trainer: Trainer, outcome: StepOutcome) -> str:
    """The first non-finite loss of this process, after writing its batch; empty if its losses are fine."""
    for number, (values, micro_batch) in enumerate(zip(outcome.term_values, outcome.micro_batches, strict=True)):
        if torch.isfinite(values["loss"]):
            continue
        bad = [name for name, value in values.items() if name != "loss" and not torch.isfinite(value).all()]
        name = bad[0] if bad else "loss"
        frames = ", ".join(frame_names(trainer.dataset, micro_batch.items))
        return (
            f'process {trainer.processes.rank}: loss term "{name}" is {float(values[name])} for frames {frames} '
            f"({_write(trainer, outcome, number)})"
        )
    return ""


def _describe_gradient(trainer: Trainer, outcome: StepOutcome) -> str:
    """The first parameter with a non-finite gradient, after writing the batch."""
    with_gradient = [(name, p.grad) for name, p in trainer.model.named_parameters() if p.grad is not None]
    if outcome.batches:
        names = [name for name, gradient in with_gradient if not torch.isfinite(gradient).all()]
    else:  # the gradients are gone, their norms are not
        finite = outcome.gradient_norms.isfinite().tolist()
        names = [name for (name, _), is_fine in zip(with_gradient, finite, strict=False) if not is_fine]
    items = [item for micro_batch in outcome.micro_batches for item in micro_batch.items]
    what = f'gradient of "{names[0]}"' if names else "norm of the gradient"
    more = f" and of {len(names) - 1} more" if len(names) > 1 else ""
    return (
        f"process {trainer.processes.rank}: the {what}{more} is not finite though the losses are, for frames "
        f"{', '.join(frame_names(trainer.dataset, items))} ({_write(trainer, outcome, 0)})"
    )


def _write(trainer: Trainer, outcome: StepOutcome, number: int) -> str:
    """Write batch ``number`` of this process as safetensors, and what is no tensor as JSON; says where it is."""
    folder = trainer.work_dir / "non_finite"
    stem = f"step_{outcome.step + 1:08d}_process_{trainer.processes.rank}"
    tensors: dict[str, Tensor] = {}
    others: dict[str, Any] = {"frames": frame_names(trainer.dataset, outcome.micro_batches[number].items)}
    others["loss_terms"] = {name: str(float(value)) for name, value in outcome.term_values[number].items()}
    path = folder / f"{stem}.safetensors"
    try:
        for name, value in _leaves(_batch(trainer, outcome, number), "batch"):
            if isinstance(value, Tensor):
                tensors[name] = value
            else:
                others[name] = value
        folder.mkdir(parents=True, exist_ok=True)
        write_tensors(path, tensors)
        path.with_suffix(".json").write_text(json.dumps(others, indent=1, default=str), encoding="utf-8")
    except (ValueError, OSError) as error:
        return f"its batch could not be written: {error}"
    return f"batch written to {path}"


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Everything in a nested structure, with a dotted name."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        for entry in dataclasses.fields(value):
            yield from _leaves(getattr(value, entry.name), f"{name}.{entry.name}")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{name}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{name}.{index}")
    elif isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        yield name, torch.from_numpy(np.ascontiguousarray(value))
    else:
        yield name, value
