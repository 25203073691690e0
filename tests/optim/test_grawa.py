from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import nn

from adperception.optim.gradient_norms import NormAverage
from adperception.optim.grawa import GradientWeighted
from adperception.optim.lgrawa import LGRAWA
from adperception.optim.mgrawa import MGRAWA
from adperception.optim.triggers import EverySteps

from toy_workers import ToyWorkers, near

NORMS = [(1.0, 2.0), (2.0, 2.0), (4.0, 8.0)]
STARTS = [[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]]


def probe_with(norms: Sequence[Sequence[float]]) -> Callable[[nn.Module], Any]:
    """Gradients with given norms, for the workers in turn."""
    turn = iter(norms * 100)

    def probe(model: nn.Module) -> None:
        assert isinstance(model, nn.ParameterList)
        for parameter, norm in zip(model, next(turn), strict=True):
            parameter.grad = torch.full_like(parameter, norm / math.sqrt(parameter.numel()))

    return probe


def after_a_round(strategy: GradientWeighted, **options: Any) -> ToyWorkers:
    workers = ToyWorkers(strategy, STARTS, lr=0.0, tensors=2, probe=probe_with(NORMS), **options)
    workers.step()
    return workers


@pytest.mark.parametrize(
    ("strategy", "center"),
    [
        (MGRAWA(pull=1.0, proximal=0), [1.75, 17.5]),
        (MGRAWA(pull=1.0, proximal=0, norm="l2"), [1.7549703547, 17.5497035469]),
        (LGRAWA(pull=1.0, proximal=0), [12 / 7, 160 / 9]),
    ],
)
def test_centres(strategy: GradientWeighted, center: list[float]) -> None:
    exact = 1e-9 if getattr(strategy, "norm", "") == "l2" else 1e-11
    near(after_a_round(strategy).x, [center] * 3, exact)


def test_weights_and_pull() -> None:
    workers = after_a_round(MGRAWA(pull=0.5, proximal=0, norm="l2"))
    expected = [[1.3774852, 13.7748518], [1.8774852, 18.7748518], [2.8774852, 28.7748518]]
    near(workers.x, expected, 1e-7)
    weights = [sync.report.weights[number] for number, sync in enumerate(workers.syncs)]
    assert weights == pytest.approx([0.4900592906, 0.3874258867, 0.1225148227], abs=1e-9)
    near(after_a_round(LGRAWA(pull=0.5, proximal=0)).x,
         [[1.3571429, 13.8888889], [1.8571429, 18.8888889], [2.8571429, 28.8888889]], 1e-7)  # fmt: skip
    weights = [s.report.weights[n] for n, s in enumerate(after_a_round(MGRAWA(proximal=0)).syncs)]
    assert weights == pytest.approx([0.5, 0.375, 0.125], abs=1e-12)


@pytest.mark.parametrize(
    ("decay", "expected"),
    [(0.9**8, [2.0, 3.3981445964, 1.9139322760]), (0.85, [2.0, 3.0810810811, 2.2721088435])],
)
def test_average_of_norms(decay: float, expected: list[float]) -> None:
    average = NormAverage(torch.zeros(1).double(), torch.zeros(1).double(), decay)
    for norm, value in zip([2.0, 4.0, 1.0], expected, strict=True):
        average.add(torch.tensor([norm]).double(), torch.tensor([True]))
        assert float(average.value()) == pytest.approx(value, abs=1e-10)
    if decay == 0.9**8:
        assert float(average.average) == pytest.approx(1.7612647061, abs=1e-10)


def test_an_absent_norm_does_not_count() -> None:
    average = NormAverage(torch.zeros(2).double(), torch.zeros(2).double(), 0.5)
    average.add(torch.tensor([3.0, 0.0]).double(), torch.tensor([True, False]))
    assert average.value().tolist() == [3.0, math.inf]


def test_a_norm_that_is_not_finite_counts_until_the_next_one() -> None:
    average = NormAverage(torch.zeros(2).double(), torch.zeros(2).double(), 0.5)
    for first, second in ((1.0, 4.0), (math.nan, 4.0)):
        average.add(torch.tensor([first, second]).double(), torch.tensor([True, True]))
    assert str(average.value().tolist()) == "[nan, 4.0]"
    average.add(torch.tensor([3.0, 4.0]).double(), torch.tensor([True, True]))
    assert average.value().tolist() == [3.0, 4.0]


def gradient_probe(model: nn.Module) -> torch.Tensor:
    assert isinstance(model, nn.ParameterList)
    loss = 0.5 * torch.cat([p.flatten() for p in model]).square().sum()
    loss.backward()
    return loss


@pytest.mark.parametrize("strategy", [MGRAWA(pull=1.0, proximal=0), LGRAWA(pull=1.0, proximal=0)])
def test_parabola_in_one_round(strategy: GradientWeighted) -> None:
    workers = ToyWorkers(strategy, [[3.0], [-1.0]], lr=0.0, probe=gradient_probe)
    near(workers.step(), [[0.0], [0.0]])


@pytest.mark.parametrize("strategy", [MGRAWA(pull=0.5, proximal=0), LGRAWA(pull=0.5, proximal=0)])
def test_equal_norms_give_the_mean(strategy: GradientWeighted) -> None:
    workers = ToyWorkers(strategy, STARTS, lr=0.0, tensors=2, probe=probe_with([(3.0, 5.0)]))
    near(workers.step(), 0.5 * workers.starts + 0.5 * workers.starts.mean(0))


@pytest.mark.parametrize("strategy", [MGRAWA(pull=1.0, proximal=0), LGRAWA(pull=1.0, proximal=0)])
def test_a_zero_norm_takes_all_and_a_bad_one_nothing(strategy: GradientWeighted) -> None:
    workers = ToyWorkers(strategy, STARTS, lr=0.0, tensors=2, probe=probe_with([(1, 1), (0, 0), (math.nan, math.inf)]))
    near(workers.step(), [STARTS[1]] * 3, 1e-9)


@pytest.mark.parametrize("strategy", [MGRAWA(pull=0.3, proximal=0), LGRAWA(pull=0.3, proximal=0)])
def test_weighted_sum_is_kept(strategy: GradientWeighted) -> None:
    norms = torch.tensor(NORMS, dtype=torch.float64)
    weights = 1 / (norms if isinstance(strategy, LGRAWA) else norms.sum(1, keepdim=True).expand(3, 2))
    before = (weights * torch.tensor(STARTS, dtype=torch.float64)).sum(0)
    near((weights * after_a_round(strategy).x).sum(0), before)


def test_inequalities_on_isotropic_parabolas() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        starts = torch.randn(4, 3, generator=generator, dtype=torch.float64)
        workers = ToyWorkers(MGRAWA(pull=1.0, proximal=0, norm="l2"), starts.tolist(), lr=0.0, probe=gradient_probe)
        norms = workers.starts.norm(dim=1)
        value = 0.5 * workers.step()[0].square().sum()
        harmonic = 4 / (1 / norms).sum()
        beta = (1 / norms) / (1 / norms).sum()
        losses = 0.5 * norms.square()
        assert value <= 0.5 * harmonic**2 + 1e-12
        assert value <= (beta * losses).sum() + 1e-12 <= losses.mean() + 2e-12


def test_online_norms_need_no_probe_and_are_reset_as_released() -> None:
    for strategy, kept in (
        (MGRAWA(norm_source="online", proximal=0), 0.0),
        (LGRAWA(norm_source="online", proximal=0), 3.0),
    ):
        workers = ToyWorkers(strategy, STARTS, lr=0.0, tensors=2, trigger=EverySteps(3))
        workers.step(3)
        assert float(workers.syncs[0].worker.state["norm_count"][0]) == kept
    # Gradients of the parabola are the parameters: sums 11, 22, 44.
    weights = ToyWorkers(MGRAWA(norm_source="online", proximal=0), STARTS, lr=0.0, tensors=2)
    weights.step()
    assert weights.syncs[0].report.weights[0] == pytest.approx((1 / 11) / (1 / 11 + 1 / 22 + 1 / 44))


def test_proximal_term() -> None:
    workers = ToyWorkers(MGRAWA(pull=0.0, proximal=0.4, norm_source="online"), [[1.0], [1.0]], trigger=EverySteps(4))
    for sync in workers.syncs:
        sync.worker.state["center"].fill_(0.5)
    near(workers.step(), [[0.9 + 0.1 * (0.5 - 0.9)]] * 2)


def test_missing_probe_and_bad_options() -> None:
    with pytest.raises(ValueError, match="MGRAWA measures gradients with a probe: pass probe to SyncOptimizer"):
        ToyWorkers(MGRAWA(), STARTS)
    with pytest.raises(ValueError, match=r'LGRAWA: norm_source="train" is unknown'):
        LGRAWA(norm_source="train")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"MGRAWA: norm_decay=1"):
        MGRAWA(norm_decay=1.0)
    with pytest.raises(ValueError, match=r'MGRAWA: norm="max" is unknown'):
        MGRAWA(norm="max")  # type: ignore[arg-type]
