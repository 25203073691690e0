from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import ttest_ind

from adperception.evaluation.seed_statistics import paired_difference, spread, welch_difference

NAN = math.nan


def test_spread_by_hand() -> None:
    result = spread([1.0, NAN, 3.0, 5.0])
    assert (result.mean, result.deviation, result.count) == (3.0, 2.0, 3)
    assert str(result) == "3.00 ± 2.00"


def test_few_values() -> None:
    assert spread([7.0]).mean == 7.0
    assert math.isnan(spread([7.0]).deviation)
    assert str(spread([7.0])) == "7.00 (one seed)"
    assert math.isnan(spread([NAN]).mean)
    assert str(spread([])) == "n/a"


def test_interval_equals_scipys_welch_test() -> None:
    rng = np.random.default_rng(0)
    for size_a, size_b, shift in ((3, 3, 1.0), (5, 4, 0.0), (2, 7, 10.0)):
        a, b = rng.normal(shift, 2.0, size_a), rng.normal(0.0, 0.5, size_b)
        interval = ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
        difference = welch_difference(a.tolist(), b.tolist())
        assert difference.value == pytest.approx(a.mean() - b.mean())
        assert (difference.low, difference.high) == pytest.approx((interval.low, interval.high))
        assert difference.distinguishable == (ttest_ind(a, b, equal_var=False).pvalue < 0.05)


def test_by_hand() -> None:
    """Equal sizes and deviations: four degrees of freedom, t = 2.776, standard error sqrt(2/3)."""
    difference = welch_difference([11.0, 12.0, 13.0], [10.0, 11.0, 12.0])
    assert difference.value == 1.0
    assert difference.high - 1.0 == pytest.approx(2.7764451 * math.sqrt(2 / 3))
    assert difference.verdict == "not distinguishable"
    assert str(difference) == "+1.00 [-1.27, +3.27]"


@pytest.mark.parametrize(
    ("values", "reference", "verdict"),
    [
        ([10.0, 10.1, 10.2], [1.0, 1.1, 1.2], "better"),
        ([1.0, 1.1, 1.2], [10.0, 10.1, 10.2], "worse"),
        ([5.0, 6.0], [5.5], "too few seeds"),
        ([5.0, NAN], [5.5, 6.0], "too few seeds"),
        ([NAN, NAN], [5.5, 6.0], "n/a"),
        ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0], "not distinguishable"),
        ([1.0, 1.0], [0.0, 0.0], "better"),
    ],
)
def test_verdicts(values: list[float], reference: list[float], verdict: str) -> None:
    assert welch_difference(values, reference).verdict == verdict


def test_paired_differences_leave_out_what_differs_between_starts() -> None:
    """Differences -1, -1.1, -0.9: deviation 0.1, two degrees of freedom, t = 4.303."""
    found = paired_difference([9.0, 48.9, 0.1, 7.0], [10.0, 50.0, 1.0, NAN])
    assert found.value == pytest.approx(-1.0)
    assert found.high - found.value == pytest.approx(4.3026527 * 0.1 / math.sqrt(3))
    assert found.verdict == "worse"
    assert paired_difference([2.0], [1.0]).verdict == "too few seeds"
    with pytest.raises(ValueError, match="zip"):
        paired_difference([1.0, 2.0], [1.0])
