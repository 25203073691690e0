"""The step that ours is measured against computes the same: losses, gradients, update, moving average."""

from __future__ import annotations

import copy
import importlib
from pathlib import Path
from types import ModuleType

import pytest
import torch

from adperception.models.pretrain.ad_l_jepa import ADLJEPA
from adperception.models.pretrain.bev_masking import masks_from_noise, non_empty_cells
from adperception.structures import LidarBatch, Voxels


@pytest.fixture
def upstream_step(repository: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    return importlib.import_module("upstream_step")


def make_model() -> ADLJEPA:
    torch.manual_seed(0)
    return ADLJEPA((0.0, -3.2, -3.0, 6.4, 3.2, 1.0), (0.1, 0.1, 0.1))


def make_voxels() -> Voxels:
    generator = torch.Generator().manual_seed(1)
    coordinates = (torch.rand(2, 40, 64, 64, generator=generator) < 0.002).nonzero()
    coordinates = coordinates[(coordinates[:, 2] < 30) | (coordinates[:, 3] > 40)]  # leaves cells empty
    return Voxels(torch.randn(len(coordinates), 4, generator=generator), coordinates.int(), 2)


def make_noise(voxels: Voxels, ratio: float) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    occupied = non_empty_cells(voxels.coordinates, 2, (8, 8), 8)
    generator = torch.Generator().manual_seed(2)
    return occupied, (
        torch.rand(int(occupied.sum()), generator=generator),
        torch.rand(occupied.shape, generator=generator),
    )


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
def test_masks_of_the_same_draws_are_ours(upstream_step: ModuleType, ratio: float) -> None:
    voxels = make_voxels()
    occupied, noise = make_noise(voxels, ratio)
    ours = masks_from_noise(occupied, *noise, ratio)
    theirs = upstream_step.upstream_masks(voxels.coordinates, 2, (8, 8), ratio, noise)
    for name in ("context_cells", "target_cells", "context_empty", "target_empty"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
    batch, _, y, x = voxels.coordinates.long().unbind(1)
    assert torch.equal(theirs.visible, ours.context_cells[batch, y // 8, x // 8])
    assert 0 < int(theirs.visible.sum()) < len(voxels)


def test_losses_and_gradients_are_ours(upstream_step: ModuleType) -> None:
    model, voxels = make_model(), make_voxels()
    occupied, noise = make_noise(voxels, model.mask_ratio)
    step = upstream_step.UpstreamStep(copy.deepcopy(model), [], torch.device("cpu"), backend="torch")
    ours = model.losses(model.embed_masked(voxels, masks_from_noise(occupied, *noise, model.mask_ratio)))
    total, terms = step.forward(voxels, noise)
    assert terms.keys() == ours.terms.keys()
    for name, value in terms.items():
        torch.testing.assert_close(value, ours.terms[name], rtol=1e-5, atol=1e-6, msg=name)
    ours.total.backward()
    total.backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            gradient = step.model.get_parameter(name).grad
            assert parameter.grad is not None
            # Biases in front of batch norm have no gradient but rounding.
            limit = 1e-3 * float(parameter.grad.abs().max()) + 1e-7
            assert float((gradient - parameter.grad).abs().max()) < limit, name
    # Not used by anybody, but there.
    assert step.model.mask_token.grad is not None
    assert step.model.empty_token.grad is not None


def test_a_step_changes_what_it_should(upstream_step: ModuleType) -> None:
    batch = LidarBatch(("a", "b"), make_voxels(), ())
    step = upstream_step.UpstreamStep(make_model(), [batch], torch.device("cpu"), backend="torch")
    before = copy.deepcopy(step.model)
    phases: list[str] = []
    loss = step(mark=phases.append)
    assert phases == ["copy", "forward", "backward", "checks", "optimizer", "after step"]
    assert float(loss) == step.logged["loss"]
    assert len(step.logged) == 12
    for name, parameter in step.model.named_parameters():
        old = before.get_parameter(name)
        if name.endswith("_token"):
            assert torch.equal(parameter, old)
        elif name.startswith("target_encoder"):
            online = step.model.get_parameter(name.replace("target_encoder", "context_encoder"))
            torch.testing.assert_close(parameter, 0.996 * old + 0.004 * online)
        else:
            assert not torch.equal(parameter, old), name


def test_every_parameter_but_the_tokens_is_optimised(upstream_step: ModuleType) -> None:
    """2,483,648 of KITTI's model, as the release optimises."""
    step = upstream_step.UpstreamStep(make_model(), [], torch.device("cpu"), backend="torch")
    assert sum(p.numel() for group in step.optimizer.param_groups for p in group["params"]) == 2_483_648
