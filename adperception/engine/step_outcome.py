"""What is known of one optimizer step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from adperception.engine.sampling import MicroBatch

__all__ = ["StepOutcome"]


@dataclass
class StepOutcome:
    """One optimizer step, between its backward passes and its end.

    Attributes:
        step: 0-based number of the step.
        micro_batches: which frames this process saw.
        batches: the batches themselves, on the training device; empty once the update is made.
        loss: this process's part of the mean loss over the step's frames.
        terms: likewise, the named terms.
        term_values: per micro-batch, total and terms as the model returned them.
        gradient_norms: ``(P,)`` norms of the gradients of the P parameters that have one.
        gradient_norm: norm of the whole gradient, the same on every process.
        learning_rate: of this step.
        momentum: beta1 of this step; ``None`` if the schedule leaves it.
        flags: ``(2,)`` boolean, on the device: the loss, and the gradient's norm, is not finite (on any process, once
            the processes agreed).
        applied: scalar boolean on the device: the update is made; ``None``: known on the host.
        counted: likewise: the step's losses are finite and count in means.
        finite: whether losses and gradient are finite on every process; ``None``: not known on the host yet.
        overflowed: the losses are finite and the scaled gradient is not: the loss scale was too large, and no update
            is made. Not an error.
        skipped: set by a hook: make no update.
        wait_seconds: time this step waited for data.
        step_seconds: time of the whole step. A GPU works on after it, unless the step ended in a read: sums over the
            steps up to a read are true.
    """

    step: int
    micro_batches: Sequence[MicroBatch]
    batches: Sequence[Any]
    loss: Tensor
    terms: dict[str, Tensor]
    term_values: list[dict[str, Tensor]]
    gradient_norms: Tensor
    gradient_norm: Tensor
    learning_rate: float
    momentum: float | None
    flags: Tensor
    applied: Tensor | None = None
    counted: Tensor | None = None
    finite: bool | None = None
    overflowed: bool = False
    skipped: bool = False
    wait_seconds: float = 0.0
    step_seconds: float = 0.0

    def resolve(self, loss_bad: bool, gradient_bad: bool, scaled: bool) -> None:
        """Note what the host has read.

        Args:
            loss_bad: the loss is not finite.
            gradient_bad: the norm of the gradient is not finite.
            scaled: there is a loss scale, which may be to blame for the gradient.
        """
        self.finite = not loss_bad and (scaled or not gradient_bad)
        self.overflowed = scaled and gradient_bad and not loss_bad
