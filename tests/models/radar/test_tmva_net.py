from __future__ import annotations

import torch
from torch import nn

from adperception.models.radar.tmva_net import TMVANet


def test_parameters() -> None:
    assert sum(p.numel() for p in TMVANet().parameters() if p.requires_grad) == 5_630_984


def test_start_values() -> None:
    """Xavier-uniform for 2D convolutions with zero biases, torch's own for the others."""
    model = TMVANet()
    for name, module in model.named_modules():
        if not isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d):
            continue
        assert module.bias is not None
        if isinstance(module, nn.Conv2d):
            outputs, inputs, *kernel = module.weight.shape
            limit = (6 / ((inputs + outputs) * kernel[0] * kernel[1])) ** 0.5
            assert 0.97 * limit < float(module.weight.detach().abs().max()) <= limit, name
            assert not bool(module.bias.any()), name
        else:
            assert bool(module.bias.any()), name


def test_reduced_geometry() -> None:
    """64 x 64 x 16 cells, where the mean of the pyramid is over 16 x 16 instead of 64 x 64."""
    model = TMVANet().eval()
    sizes = list[torch.Size]()
    for block in (model.rd_aspp_block, model.ra_aspp_block, model.ad_aspp_block):
        block.register_forward_hook(lambda _module, _inputs, output: sizes.append(output.shape))
    with torch.no_grad():
        rd, ra = model.logits(torch.rand(1, 5, 64, 16), torch.rand(1, 5, 64, 64), torch.rand(1, 5, 64, 16))
    assert sizes == [(1, 640, 16, 16)] * 3
    assert rd.shape == (1, 4, 64, 16)
    assert ra.shape == (1, 4, 64, 64)
