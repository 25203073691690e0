"""CFAR: false alarms as many as asked for, targets found, borders."""

from __future__ import annotations

import numpy as np
import pytest

from adperception.simulation.cfar import CFAR, cell_averaging_factor, ordered_statistic_factor


def threshold_by_loop(power: np.ndarray, detector: CFAR) -> np.ndarray:
    """Training cells gathered one by one."""
    (g0, g1), (t0, t1) = detector.guard, detector.training
    rows, columns = power.shape
    found = np.zeros(power.shape, dtype=bool)
    for r in range(rows):
        for c in range(columns):
            cells = [
                power[i, (c + j) % columns]
                for i in range(max(r - g0 - t0, 0), min(r + g0 + t0 + 1, rows))
                for j in range(-g1 - t1, g1 + t1 + 1)
                if abs(i - r) > g0 or abs(j) > g1
            ]
            n = len(cells)
            if detector.rank is None:
                level = np.mean(cells) * cell_averaging_factor(detector.false_alarm, n)
            else:
                k = int(np.ceil(detector.rank * n))
                level = np.sort(cells)[k - 1] * ordered_statistic_factor(detector.false_alarm, n, k)
            found[r, c] = power[r, c] > level
    return found


DETECTORS = [CFAR((1, 1), (2, 3), 0.02), CFAR((1, 1), (2, 3), 0.02, rank=0.75), CFAR((0, 2), (1, 2), 0.05, rank=0.5)]


@pytest.mark.parametrize("detector", DETECTORS)
def test_equals_the_cell_by_cell_rule(detector: CFAR) -> None:
    power = np.random.default_rng(0).exponential(size=(17, 19))
    found = detector(power)
    np.testing.assert_array_equal(found, threshold_by_loop(power, detector))
    assert found.any()


@pytest.mark.parametrize("rank", [None, 0.75])
def test_false_alarms_are_as_rare_as_asked_for(rank: float | None) -> None:
    power = np.random.default_rng(1).exponential(size=(400, 256))
    for wanted in (1e-2, 1e-3):
        share = CFAR((1, 1), (3, 3), wanted, rank=rank)(power).mean()
        assert abs(share / wanted - 1) < 0.25, (wanted, share)


def test_textbook_factors() -> None:
    np.testing.assert_allclose(cell_averaging_factor(1e-6, 16), 16 * (10 ** (6 / 16) - 1))
    factor = ordered_statistic_factor(1e-6, 24, 18)
    i = np.arange(18)
    np.testing.assert_allclose(np.prod((24 - i) / (24 - i + factor)), 1e-6, rtol=1e-6)


@pytest.mark.parametrize("cell", [(20, 30), (0, 0), (63, 63)])
def test_a_target_is_found_anywhere(cell: tuple[int, int]) -> None:
    power = np.random.default_rng(2).exponential(size=(64, 64))
    power[cell] = 60.0
    assert CFAR()(power)[cell]
    assert CFAR(rank=0.75)(power)[cell]


def test_ordered_statistic_finds_two_neighbours_that_hide_each_other_from_the_mean() -> None:
    power = np.random.default_rng(3).exponential(size=(64, 64))
    power[30, 20], power[30, 25] = 40.0, 4000.0
    assert not CFAR()(power)[30, 20]
    assert CFAR(rank=0.75)(power)[30, 20]


def test_fixed_factor() -> None:
    power = np.ones((9, 9))
    power[4, 4] = 4.3
    assert CFAR((1, 1), (1, 1), factor=4.2)(power).sum() == 1
    assert CFAR((1, 1), (1, 1), factor=4.4)(power).sum() == 0


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="training"):
        CFAR(training=(0, 0))
    with pytest.raises(ValueError, match="false_alarm=0"):
        CFAR(false_alarm=0)
    with pytest.raises(ValueError, match="rank=2"):
        CFAR(rank=2)
    with pytest.raises(ValueError, match="9 columns"):
        CFAR(training=(4, 8))(np.ones((20, 9)))
