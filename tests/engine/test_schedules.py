from __future__ import annotations

import math

import pytest

from adperception.engine.schedules import Constant, OneCycle, StepDecay


@pytest.mark.parametrize("total", [6960, 120, 7])
def test_one_cycle_of_ad_l_jepa(total: int) -> None:
    cycle, peak_step = OneCycle(), int(0.4 * total)
    first, peak, last = (cycle.at(step, total, 3e-4) for step in (0, peak_step, total - 1))
    assert first.learning_rate == pytest.approx(3e-5)
    assert first.momentum == pytest.approx(0.95)
    assert peak.learning_rate == pytest.approx(3e-4)
    assert peak.momentum == pytest.approx(0.85)
    assert cycle.at(total, total, 3e-4).learning_rate == pytest.approx(3e-9)
    # The last step is one step before the end of the cosine.
    fraction = (total - 1 - peak_step) / (total - peak_step)
    expected = 3e-9 + (3e-4 - 3e-9) * (1 + math.cos(math.pi * fraction)) / 2
    assert last.learning_rate == pytest.approx(expected)
    if total == 6960:
        assert last.learning_rate == pytest.approx(3e-9, abs=1e-10)
        assert last.momentum == pytest.approx(0.95, abs=1e-6)


def test_one_cycle_rises_then_falls() -> None:
    rates = [OneCycle().at(step, 100, 1.0).learning_rate for step in range(100)]
    assert rates[:41] == sorted(rates[:41])
    assert rates[40:] == sorted(rates[40:], reverse=True)
    # Half way up, a cosine is at the mean of its ends.
    assert rates[20] == pytest.approx((0.1 + 1.0) / 2)
    assert OneCycle().at(70, 100, 1.0).momentum == pytest.approx(0.9)


def test_one_cycle_without_rise_or_momentum() -> None:
    values = OneCycle(peak_fraction=0.0, momentum=None).at(0, 10, 1.0)
    assert values.learning_rate == pytest.approx(1.0)
    assert values.momentum is None


def test_constant() -> None:
    assert Constant().at(7, 10, 0.5).learning_rate == 0.5


def test_bad_peak() -> None:
    with pytest.raises(ValueError, match=r"peak_fraction=1\.5 must be between 0 and 1"):
        OneCycle(peak_fraction=1.5)
    with pytest.raises(ValueError, match="end_divisor=0"):
        OneCycle(end_divisor=0)


def test_step_decay_is_the_radar_protocol() -> None:
    """Times 0.9 after every 20 of 300 epochs, here of 7 steps."""
    curve = StepDecay()
    for step in range(2100):
        assert curve.at(step, 2100, 1e-4).learning_rate == pytest.approx(1e-4 * 0.9 ** (step // 7 // 20))


def test_step_decay_refuses_a_factor_above_one() -> None:
    with pytest.raises(ValueError, match=r"factor=1.5"):
        StepDecay(factor=1.5)
