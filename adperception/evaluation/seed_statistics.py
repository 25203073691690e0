"""Mean, spread and difference of a metric over repeated runs.

A difference is only called one if the 95 % interval of Welch's t (unequal variances; Welch, Biometrika 1947) excludes
zero. With few seeds the interval is wide, as it should be: at three seeds each, a difference has to be two to four
times the standard deviation to show.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Difference", "Spread", "paired_difference", "spread", "welch_difference"]

NAN = float("nan")


@dataclass(frozen=True)
class Spread:
    """A metric over n runs; runs without a value (NaN) do not count.

    Attributes:
        mean: NaN if there is no run.
        deviation: standard deviation over runs, unbiased (n - 1); NaN for fewer than two.
        count: n.
    """

    mean: float
    deviation: float
    count: int

    def __str__(self) -> str:
        if not self.count:
            return "n/a"
        return f"{self.mean:.2f} ± {self.deviation:.2f}" if self.count > 1 else f"{self.mean:.2f} (one seed)"


@dataclass(frozen=True)
class Difference:
    """How much one set of runs is above another.

    Attributes:
        value: difference of the means.
        low: lower end of the interval; NaN if either side has fewer than two runs.
        high: upper end.
    """

    value: float
    low: float
    high: float

    @property
    def distinguishable(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0

    @property
    def verdict(self) -> str:
        """``"better"``, ``"worse"``, ``"not distinguishable"`` or ``"too few seeds"`` (of a metric to be maximised)."""
        if math.isnan(self.low):
            return "n/a" if math.isnan(self.value) else "too few seeds"
        if not self.distinguishable:
            return "not distinguishable"
        return "better" if self.value > 0 else "worse"

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "n/a"
        return (
            f"{self.value:+.2f}" if math.isnan(self.low) else f"{self.value:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"
        )


def spread(values: Sequence[float]) -> Spread:
    """Mean and standard deviation of ``values`` without its NaNs."""
    present = [value for value in values if not math.isnan(value)]
    count = len(present)
    if not count:
        return Spread(NAN, NAN, 0)
    mean = math.fsum(present) / count
    if count < 2:
        return Spread(mean, NAN, count)
    return Spread(mean, math.sqrt(math.fsum((value - mean) ** 2 for value in present) / (count - 1)), count)


def welch_difference(values: Sequence[float], reference: Sequence[float], confidence: float = 0.95) -> Difference:
    """Mean of ``values`` minus mean of ``reference`` with Welch's interval.

    Args:
        values: one metric per run; NaNs do not count.
        reference: likewise of the runs to compare with.
        confidence: of the two-sided interval.
    """
    from scipy.stats import t as student

    a, b = spread(values), spread(reference)
    value = a.mean - b.mean
    if a.count < 2 or b.count < 2:
        return Difference(value, NAN, NAN)
    part_a, part_b = a.deviation**2 / a.count, b.deviation**2 / b.count
    variance = part_a + part_b
    if variance == 0:
        return Difference(value, value, value)
    freedom = variance**2 / (part_a**2 / (a.count - 1) + part_b**2 / (b.count - 1))
    half = float(student.ppf(0.5 + confidence / 2, freedom)) * math.sqrt(variance)
    return Difference(value, value - half, value + half)


def paired_difference(values: Sequence[float], reference: Sequence[float], confidence: float = 0.95) -> Difference:
    """Mean of the differences of runs that belong together, with Student's interval.

    For runs that share a start, such as a network before and after pruning: what differs between starts cancels.

    Args:
        values: one metric per run.
        reference: of the run that each one is compared with; pairs with a NaN do not count.
        confidence: of the two-sided interval.
    """
    from scipy.stats import t as student

    over = spread([value - other for value, other in zip(values, reference, strict=True)])
    if over.count < 2:
        return Difference(over.mean, NAN, NAN)
    half = float(student.ppf(0.5 + confidence / 2, over.count - 1)) * over.deviation / math.sqrt(over.count)
    return Difference(over.mean, over.mean - half, over.mean + half)
