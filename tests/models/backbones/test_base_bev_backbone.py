from __future__ import annotations

import pytest
import torch

from adperception.models.backbones.base_bev_backbone import BaseBEVBackbone


def test_published_size_and_names() -> None:
    backbone = BaseBEVBackbone(256)
    assert sum(p.numel() for p in backbone.parameters()) == 4_576_768
    names = [n for n, p in backbone.named_parameters() if p.dim() == 4]
    convolutions = [f"blocks.{b}.{i}.weight" for b in (0, 1) for i in (1, 4, 7, 10, 13, 16)]
    assert names == [*convolutions, "deblocks.0.0.weight", "deblocks.1.0.weight"]
    assert backbone.out_channels == 512


def test_output_has_the_resolution_of_the_input() -> None:
    backbone = BaseBEVBackbone(3, layer_nums=[0, 1, 2], filters=[4, 5, 6], upsample_filters=[2, 3, 4])
    assert backbone.stride == 4
    assert backbone(torch.randn(2, 3, 8, 12)).shape == (2, 9, 8, 12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer_nums": [5]}, "need one number per block each"),
        ({"layer_nums": [], "filters": [], "upsample_filters": []}, "need one number per block each"),
        ({"layer_nums": [-1, 5]}, r"layer_nums=\[-1, 5\] must be 0 or more"),
        ({"filters": [0, 5]}, r"filters=\[0, 5\] must be 1 or more"),
    ],
)
def test_impossible_options(options: dict[str, list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BaseBEVBackbone(3, **options)
