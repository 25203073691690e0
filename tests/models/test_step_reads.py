"""One wait of the host per training step, counted by following tensors on the CPU."""

from __future__ import annotations

import pytest

from adperception.models.backbones import level_plan, voxel_backbone_8x
from adperception.models.pretrain import cell_plan
from tests.models.small_models import MODELS
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
