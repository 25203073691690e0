from __future__ import annotations

import pytest
import torch

from adperception.models.radar.erase_net_sizes import ERASE_NET_SIZES
from adperception.models.radar.patch_segmenter import PatchSegmenter, PatchUNet


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
    with_head = PatchSegmenter(3, 5, 3, (4, 6, 8), class_head=True)(doppler, angle)
    assert with_head.objects is not None
    assert with_head.objects.shape == (2, 4)
    assert PatchSegmenter(3, 5, 3, (4, 6, 8), class_head=False)(doppler, angle).objects is None
