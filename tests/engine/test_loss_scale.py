"""The loss scale does what torch's GradScaler does, without being read."""

from __future__ import annotations

import pytest
import torch

from adperception.engine.host_reads import HostReads
from adperception.engine.loss_scale import LossScale

CPU = torch.device("cpu")


def flag(value: bool) -> torch.Tensor:
    return torch.tensor(value)


def test_it_follows_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LossScale, "GROWTH_INTERVAL", 3)
    scale, tracker = torch.tensor(65536.0), torch.tensor(0, dtype=torch.int32)
    ours = LossScale(CPU)
    for overflowed in [0, 1, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0]:
        torch._amp_update_scale_(scale, tracker, torch.tensor(float(overflowed)), 2.0, 0.5, 3)
        ours.update(flag(bool(overflowed)), flag(not overflowed))
        assert torch.equal(ours.scale, scale)
        assert int(ours.steps_since_change) == int(tracker)


def test_the_constants_are_those_of_torch() -> None:
    theirs = torch.amp.GradScaler("cpu")
    ours = (LossScale.INITIAL, LossScale.GROWTH, LossScale.BACKOFF, LossScale.GROWTH_INTERVAL)
    assert ours == (
        theirs.get_scale(),
        theirs.get_growth_factor(),
        theirs.get_backoff_factor(),
        theirs.get_growth_interval(),
    )


def test_it_does_not_grow_to_infinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LossScale, "GROWTH_INTERVAL", 1)
    scale = LossScale(CPU)
    for _ in range(200):
        scale.update(flag(False), flag(True))
    assert float(scale.scale) == 2.0**127


def test_a_bad_loss_is_not_its_fault() -> None:
    scale = LossScale(CPU)
    scale.update(flag(False), flag(True))
    scale.update(flag(False), flag(False))
    assert (float(scale.scale), int(scale.steps_since_change)) == (65536.0, 1)


def test_unscaling_is_exact_and_nothing_is_read() -> None:
    scale = LossScale(CPU)
    weight = torch.randn(5, requires_grad=True)
    before = scale.state()
    with HostReads(cuda=False) as reads:
        scale.scaled((weight**2).sum()).backward()
        assert weight.grad is not None
        scale.unscale_([weight.grad])
        scale.update(torch.isfinite(weight.grad).all().logical_not(), torch.isfinite(weight.grad).all())
    assert reads.places == []
    assert torch.equal(weight.grad, 2 * weight.detach())
    assert int(scale.steps_since_change) == 1
    scale.restore(before)
    assert int(scale.steps_since_change) == 0
