from __future__ import annotations

import math

import pytest
import torch

from adperception.losses.occupancy_bce import occupancy_bce


def twin(logits: torch.Tensor, coordinates: torch.Tensor) -> tuple[float, float, float]:
    occupied = {tuple(row) for row in coordinates.tolist()}
    full, empty = [], []
    for index in torch.cartesian_prod(*(torch.arange(n) for n in logits.shape)).tolist():
        probability = 1 / (1 + math.exp(-float(logits[tuple(index)])))
        if tuple(index) in occupied:
            full.append(-math.log(probability))
        else:
            empty.append(-math.log(1 - probability))
    return sum(full + empty) / logits.numel(), sum(full) / max(len(full), 1), sum(empty) / len(empty)


def test_equals_the_slow_twin() -> None:
    logits = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    coordinates = torch.tensor([[0, 0, 0, 0], [0, 2, 3, 4], [1, 1, 0, 2]], dtype=torch.int32)
    loss = occupancy_bce(logits, coordinates)
    assert (float(loss.mean), float(loss.occupied), float(loss.empty)) == pytest.approx(
        twin(logits, coordinates), rel=1e-5
    )


def test_an_empty_scan_is_legal() -> None:
    logits = torch.randn(1, 2, 2, 2, requires_grad=True)
    loss = occupancy_bce(logits, torch.zeros(0, 4, dtype=torch.int32))
    loss.mean.backward()
    assert float(loss.occupied) == 0
    assert float(loss.mean.detach()) == pytest.approx(float(loss.empty))
    assert logits.grad is not None
    assert bool(logits.grad.any())


def test_large_logits_stay_finite_and_gradcheck() -> None:
    coordinates = torch.tensor([[0, 0, 0, 1], [0, 0, 1, 0]])
    far = torch.tensor([[[[500.0, -500.0], [500.0, -500.0]]]])
    assert float(occupancy_bce(far, coordinates).mean) == pytest.approx(250.0)
    logits = torch.randn(1, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: occupancy_bce(x, coordinates).mean, (logits,))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32_and_kept_as_it_is(dtype: torch.dtype) -> None:
    logits = torch.randn(2, 5, 16, 16).to(dtype).requires_grad_()
    exact = logits.detach().float().requires_grad_()
    coordinates = torch.tensor([[0, 1, 2, 3], [0, 4, 0, 0], [1, 2, 15, 7]], dtype=torch.int32)
    saved: list[torch.Tensor] = []
    with (
        torch.autocast("cpu", torch.bfloat16),
        torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t),
    ):
        loss = occupancy_bce(logits, coordinates)
    expected = occupancy_bce(exact, coordinates)
    for name in ("mean", "occupied", "empty"):
        value, wanted = getattr(loss, name), getattr(expected, name)
        assert value.dtype == torch.float32, name
        torch.testing.assert_close(value, wanted, rtol=1e-5, atol=1e-6)
    assert {t.dtype for t in saved if t.shape == logits.shape} == {dtype}
    (gradient,) = torch.autograd.grad(loss.mean, logits)
    (wanted,) = torch.autograd.grad(expected.mean, exact)
    torch.testing.assert_close(gradient.float(), wanted, rtol=2 * torch.finfo(dtype).eps, atol=1e-6)
