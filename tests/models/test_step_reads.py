"""One wait of the host per training step, counted by following tensors on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adperception.models.backbones import level_plan, voxel_backbone_8x
from adperception.models.pretrain import cell_plan
from adperception.models.pretrain.ad_l_jepa import ADLJEPA
from adperception.structures import LidarFrame, PointCloud
from tests.models.small_models import MODELS, Step
from tests.models.step_reads import CHECKS, TORCH_BACKEND, step_reads

READING_MODULES = (cell_plan, level_plan, voxel_backbone_8x)
"""Where it is asked whether the sparse backend wants a plan."""


@pytest.mark.parametrize("planned", [False, True])
@pytest.mark.parametrize("name", ["ad_l_jepa", "second", "centerpoint", "occupancy_mae"])
def test_one_wait_per_step(name: str, planned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether or not the sites of the encoder's levels are among what is read."""
    for module in READING_MODULES:
        monkeypatch.setattr(module, "uses_planned_sites", lambda features: planned)
    places = step_reads(MODELS[name](), (*CHECKS, *TORCH_BACKEND))
    assert len(places) == 1, places


@pytest.mark.parametrize("name", ["tmva_net", "mv_net", "pkcin_net"])
def test_views_wait_once_when_their_statistics_are_known(name: str) -> None:
    """For the classes of the masks; statistics and weights are looked at in the first step."""
    step = MODELS[name]()
    step_reads(step)
    places = step_reads(step)
    assert len(places) == 1, places


def test_count_is_not_blind() -> None:
    """The torch backend asks for the pairs of every tap, and the first inputs are checked."""
    assert any("rulebook.py" in place for place in step_reads(MODELS["second"](), CHECKS))


def tiny_step() -> Step:
    """AD-L-JEPA with so few voxels that Triton's interpreter is done with them soon."""
    torch.manual_seed(0)
    model = ADLJEPA([0.0, -1.6, -3.0, 3.2, 1.6, 1.0], [0.1, 0.1, 0.1]).train()
    rng = np.random.default_rng(0)
    points = rng.uniform([0, -1.6, -1.8, 0], [3.2, 1.6, -1.5, 1], size=(2, 25, 4)).astype(np.float32)
    frames = [LidarFrame(str(number), PointCloud(cloud)) for number, cloud in enumerate(points)]
    return Step(model, model.collate(training=True)(frames))


def test_one_wait_per_step_with_the_triton_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sparse convolutions are not left out here: with planned sites they ask for nothing."""
    pytest.importorskip("triton")
    from adperception.sparse import backend_triton, use_backend
    from adperception.sparse.tuning import ConvolveBlocks, WeightGradientBlocks

    # Few and large programs: the interpreter runs one after the other.
    monkeypatch.setattr(backend_triton, "convolve_blocks", lambda *_: ConvolveBlocks(64, 64, 128))
    monkeypatch.setattr(backend_triton, "weight_gradient_blocks", lambda *_: WeightGradientBlocks(64, 64, 128, 1))
    step = tiny_step()
    with use_backend("triton"):
        places = step_reads(step)
    assert len(places) == 1, places
    assert "cell_plan.py" in places[0]
    gradients = [parameter.grad for parameter in step.model.parameters() if parameter.requires_grad]
    reference = tiny_step()
    reference.model(reference.batch, torch.Generator().manual_seed(0)).total.backward()
    expected = [parameter.grad for parameter in reference.model.parameters() if parameter.requires_grad]
    for ours, theirs in zip(gradients, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
