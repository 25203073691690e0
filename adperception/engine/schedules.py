"""Learning-rate and momentum curves: pure functions of the global optimizer step.

So a resumed run cannot lose its place on them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from adperception.registry import SCHEDULES

__all__ = ["Constant", "OneCycle", "Schedule", "ScheduleValues", "StepDecay"]


@dataclass(frozen=True)
class ScheduleValues:
    """What an optimizer step uses.

    Attributes:
        learning_rate: step size.
        momentum: Adam's beta1; ``None`` leaves the optimizer's own.
    """

    learning_rate: float
    momentum: float | None


class Schedule(Protocol):
    """A curve over a run."""

    def at(self, step: int, total_steps: int, peak_learning_rate: float) -> ScheduleValues:
        """The values for optimizer step ``step`` of 0, 1, ... ``total_steps`` - 1."""
        ...


@SCHEDULES.register_module()
@dataclass(frozen=True)
class Constant:
    """The same learning rate at every step."""

    def at(self, step: int, total_steps: int, peak_learning_rate: float) -> ScheduleValues:
        """See ``Schedule.at``."""
        return ScheduleValues(peak_learning_rate, None)


@SCHEDULES.register_module()
@dataclass(frozen=True)
class OneCycle:
    """Up and down by cosines, momentum the other way (the fastai variant that OpenPCDet trains with).

    With ``a = int(peak_fraction * total_steps)``: for ``step < a`` the learning rate goes from ``peak/start_divisor``
    to ``peak``, afterwards from ``peak`` to ``peak/start_divisor/end_divisor``; momentum goes from its first to its
    second value and back.

    Attributes:
        start_divisor: peak over first learning rate.
        end_divisor: first over last learning rate.
        peak_fraction: where the peak is, as a fraction of the run.
        momentum: beta1 at the ends and at the peak; ``None`` leaves the optimizer's own.
    """

    start_divisor: float = 10.0
    end_divisor: float = 1e4
    peak_fraction: float = 0.4
    momentum: tuple[float, float] | None = (0.95, 0.85)

    def __post_init__(self) -> None:
        if not 0.0 <= self.peak_fraction <= 1.0:
            raise ValueError(f"OneCycle: peak_fraction={self.peak_fraction} must be between 0 and 1.")
        if self.start_divisor <= 0 or self.end_divisor <= 0:
            raise ValueError(
                f"OneCycle: start_divisor={self.start_divisor} and end_divisor={self.end_divisor} must be positive."
            )

    def at(self, step: int, total_steps: int, peak_learning_rate: float) -> ScheduleValues:
        """See ``Schedule.at``."""
        first = peak_learning_rate / self.start_divisor
        border = int(self.peak_fraction * total_steps)
        if step < border:
            fraction = step / border
            rate = _cosine(first, peak_learning_rate, fraction)
        else:
            fraction = (step - border) / (total_steps - border)
            rate = _cosine(peak_learning_rate, first / self.end_divisor, fraction)
        if self.momentum is None:
            return ScheduleValues(rate, None)
        ends, peak = self.momentum
        momentum = _cosine(ends, peak, fraction) if step < border else _cosine(peak, ends, fraction)
        return ScheduleValues(rate, momentum)


@SCHEDULES.register_module()
@dataclass(frozen=True)
class StepDecay:
    """The learning rate times ``factor`` at the start of each of ``stages`` equal parts of a run but the first.

    0.9 and 15: times 0.9 after every 20 of 300 epochs (the radar protocol of MVRSS).

    Attributes:
        factor: what the learning rate is multiplied by.
        stages: number of equal parts.
    """

    factor: float = 0.9
    stages: int = 15

    def __post_init__(self) -> None:
        if not 0 < self.factor <= 1 or self.stages < 1:
            raise ValueError(
                f"StepDecay: factor={self.factor} must be above 0 and at most 1, stages={self.stages} at least 1."
            )

    def at(self, step: int, total_steps: int, peak_learning_rate: float) -> ScheduleValues:
        """See ``Schedule.at``."""
        return ScheduleValues(peak_learning_rate * self.factor ** (step * self.stages // total_steps), None)


def _cosine(start: float, end: float, fraction: float) -> float:
    """Half a cosine wave from ``start`` (fraction 0) to ``end`` (fraction 1)."""
    return end + (start - end) / 2 * (math.cos(math.pi * fraction) + 1)
