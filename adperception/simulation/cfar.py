"""Detection with a constant false-alarm rate (CFAR): a cell stands out from the cells around it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import gammaln

__all__ = ["CFAR", "cell_averaging_factor", "ordered_statistic_factor"]


def cell_averaging_factor(false_alarm: float, cells: int) -> float:
    """Threshold over the mean of ``cells`` cells of exponential noise (square-law detector): N (Pfa^(-1/N) - 1)."""
    return float(cells * (false_alarm ** (-1 / cells) - 1))


def ordered_statistic_factor(false_alarm: float, cells: int, rank: int) -> float:
    """Threshold over the ``rank``-th smallest (from 1) of ``cells`` cells of exponential noise.

    Solves Pfa = prod_{i < k} (N - i) / (N - i + factor), Rohling 1983.
    """

    def excess(factor: float) -> float:
        rest = cells - rank
        log_alarm = gammaln(cells + 1) - gammaln(rest + 1) - gammaln(cells + 1 + factor) + gammaln(rest + 1 + factor)
        return float(log_alarm - np.log(false_alarm))

    return float(brentq(excess, 0.0, 1e6))


@dataclass(frozen=True)
class CFAR:
    """Detector on a power map with range rows and circular columns (Doppler or azimuth).

    The training cells are a rectangle around the cell without the guard rectangle in its middle. Columns wrap around;
    at the first and last rows the rectangle is cut, and the threshold follows the smaller number of cells.

    Attributes:
        guard: cells left out on each side, (rows, columns).
        training: cells used on each side outside the guard, (rows, columns).
        false_alarm: wanted share of false alarms in exponential noise.
        factor: threshold as a fixed multiple instead of ``false_alarm``.
        rank: ``None`` compares with the mean of the training cells (cell averaging); 0.75, say, with the value that
            three quarters of them do not exceed (ordered statistic), which other objects nearby do not lift.
    """

    guard: tuple[int, int] = (2, 2)
    training: tuple[int, int] = (4, 4)
    false_alarm: float = 1e-4
    factor: float | None = None
    rank: float | None = None

    def __post_init__(self) -> None:
        if min(self.guard) < 0 or min(self.training) < 0 or max(self.training) == 0:
            raise ValueError(f"CFAR: guard={self.guard}, training={self.training}; there must be training cells.")
        if not 0 < self.false_alarm < 1:
            raise ValueError(f"CFAR: false_alarm={self.false_alarm} must be between 0 and 1.")
        if self.rank is not None and not 0 < self.rank <= 1:
            raise ValueError(f"CFAR: rank={self.rank} must be in (0, 1].")

    def __call__(self, power: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Cells of a power map ``(rows, columns)`` that stand out.

        Raises:
            ValueError: if the rectangle is wider than the map.
        """
        if 2 * (self.guard[1] + self.training[1]) + 1 > power.shape[1]:
            raise ValueError(
                f"CFAR: guard {self.guard} and training {self.training} cells span more than the {power.shape[1]} "
                "columns of the map; use fewer."
            )
        return power > (self._mean_threshold(power) if self.rank is None else self._rank_threshold(power))

    def _mean_threshold(self, power: NDArray[np.floating]) -> NDArray[np.float64]:
        inner, outer = self.guard, tuple(g + t for g, t in zip(self.guard, self.training, strict=True))
        total = _box_sum(power, *outer) - _box_sum(power, *inner)
        count = self._counts(len(power))
        factor = [self.factor or cell_averaging_factor(self.false_alarm, int(n)) for n in count]
        return total * (np.array(factor) / count)[:, None]

    def _counts(self, rows: int) -> NDArray[np.int64]:
        """Training cells of each row."""
        row = np.arange(rows)

        def cells(half_rows: int, half_columns: int) -> NDArray[np.int64]:
            height = np.minimum(row + half_rows, rows - 1) - np.maximum(row - half_rows, 0) + 1
            return np.asarray(height * (2 * half_columns + 1))

        (g0, g1), (t0, t1) = self.guard, self.training
        return cells(g0 + t0, g1 + t1) - cells(g0, g1)

    def _rank_threshold(self, power: NDArray[np.floating]) -> NDArray[np.float64]:
        (g0, g1), (t0, t1) = self.guard, self.training
        half_rows, half_columns = g0 + t0, g1 + t1
        wrapped = np.pad(power, ((0, 0), (half_columns, half_columns)), mode="wrap")
        rows = len(power)
        threshold = np.empty(power.shape)
        whole = range(half_rows, rows - half_rows)
        blocks = [(whole.start, whole.stop)] if len(whole) else []
        # Rows whose rectangle is cut are done one by one.
        blocks += [(row, row + 1) for row in range(rows) if row not in whole]
        for start, stop in blocks:
            first, last = max(start - half_rows, 0), min(stop - 1 + half_rows, rows - 1)
            height = last - first + 1 - (stop - start - 1)
            window = np.ones((height, 2 * half_columns + 1), dtype=np.bool_)
            centre = start - first
            window[max(centre - g0, 0) : centre + g0 + 1, t1 : t1 + 2 * g1 + 1] = False
            around = sliding_window_view(wrapped[first : last + 1], window.shape)[:, :, window]
            count = around.shape[-1]
            rank = max(int(np.ceil((self.rank or 1.0) * count)), 1)
            factor = self.factor or ordered_statistic_factor(self.false_alarm, count, rank)
            threshold[start:stop] = factor * np.partition(around, rank - 1, axis=-1)[..., rank - 1]
        return threshold


def _box_sum(power: NDArray[np.floating], half_rows: int, half_columns: int) -> NDArray[np.float64]:
    """Sum over a rectangle around each cell, columns circular, rows cut."""
    rows, columns = power.shape
    wrapped = np.pad(power.astype(np.float64), ((0, 0), (half_columns, half_columns)), mode="wrap")
    total = np.zeros((rows + 1, wrapped.shape[1] + 1))
    total[1:, 1:] = wrapped.cumsum(0).cumsum(1)
    row = np.arange(rows)
    below, above = np.minimum(row + half_rows + 1, rows), np.maximum(row - half_rows, 0)
    strip = total[below] - total[above]
    return np.asarray(strip[:, 2 * half_columns + 1 :][:, :columns] - strip[:, :columns])
