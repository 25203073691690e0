from __future__ import annotations

import pytest
import torch

from adperception.models.radar.erase_net_sizes import ERASE_NET_SIZES
from adperception.models.radar.patch_segmenter import Echoes, PatchSegmenter, PatchUNet, lift


@pytest.mark.parametrize(("channels", "parameters"), [(10, 82_628), (160, 104_228)])
def test_parameters(channels: int, parameters: int) -> None:
    """The fact sheet's counts for T = 5: light input, and 32 channels per moment."""
    net = PatchUNet(channels, 4, ERASE_NET_SIZES["small"].segmenter)
    assert sum(p.numel() for p in net.parameters()) == parameters


@pytest.mark.parametrize("shape", [(48, 32), (12, 8), (12, 64), (10, 6)])
def test_logits_have_the_shape_of_the_patch(shape: tuple[int, int]) -> None:
    logits, _ = PatchUNet(3, 4, (4, 6, 8))(torch.rand(2, 3, *shape))
    assert logits.shape == (2, 4, *shape)


def test_object_class_head_is_a_switch() -> None:
    doppler, angle = torch.rand(2, 3, 12, 8), torch.rand(2, 5, 12, 16)
    with_head = PatchSegmenter(3, 5, 3, (4, 6, 8), class_head=True, lift=False)(doppler, angle)
    assert with_head.objects is not None
    assert with_head.objects.shape == (2, 4)
    assert PatchSegmenter(3, 5, 3, (4, 6, 8), class_head=False, lift=False)(doppler, angle).objects is None


def test_lifting_keeps_the_largest_value_of_a_column() -> None:
    values = torch.tensor([[[0.2, 0.7, -0.5], [0.4, 0.1, 0.3]]])
    azimuths = torch.tensor([[[3, 3, 1], [0, 2, 0]]])
    lifted = lift(values, azimuths, 4)
    torch.testing.assert_close(lifted, torch.tensor([[[0.0, 0.0, 0.0, 0.7], [0.4, 0.0, 0.1, 0.0]]]))


def test_range_angle_network_sees_where_the_other_one_found_something() -> None:
    """The gradient of the range-angle mask reaches the range-Doppler network, and azimuths move the mask."""
    torch.manual_seed(0)
    segmenter = PatchSegmenter(3, 5, 3, (4, 6, 8), class_head=False, lift=True)
    assert segmenter.range_angle.e0[0][0].in_channels == 7
    doppler, angle = torch.rand(1, 3, 12, 8), torch.zeros(1, 5, 12, 16)
    echoes = Echoes(torch.full((1, 12, 8), 5), torch.ones(1, 12, 8))
    found = segmenter(doppler, angle, echoes).range_angle
    found.sum().backward()
    assert bool(segmenter.range_doppler.classify.weight.grad.any())  # type: ignore[union-attr]
    segmenter.eval()
    moved = Echoes(echoes.azimuths + 4, echoes.levels)
    here, there = (segmenter(doppler, angle, e).range_angle for e in (echoes, moved))
    torch.testing.assert_close(here.roll(4, dims=3), there)
