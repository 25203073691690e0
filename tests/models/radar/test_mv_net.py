from __future__ import annotations

import torch

from adperception.models.radar.mv_net import MVNet


def counts(model: MVNet) -> tuple[int, int]:
    return sum(p.numel() for p in model.parameters()), sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_parameters() -> None:
    assert counts(MVNet()) == (2_375_432, 1_336_712)
    assert counts(MVNet(shared_blocks=False)) == (2_375_432, 2_375_432)
    assert MVNet().state_dict().keys() == MVNet(shared_blocks=False).state_dict().keys()


def test_idle_blocks_do_not_matter_and_the_intended_ones_do() -> None:
    views = [torch.rand(1, 3, 16, 4), torch.rand(1, 3, 16, 16)]
    for shared in (True, False):
        model = MVNet(shared_blocks=shared).eval()
        with torch.no_grad():
            before = model.logits(*views)
            for name in ("ra_double_conv_block1", "ra_double_conv_block2", "ra_double_conv_block4"):
                for parameter in getattr(model, name).parameters():
                    parameter.add_(1.0)
            after = model.logits(*views)
        assert torch.equal(before.range_angle, after.range_angle) == shared


def test_without_sharing_every_parameter_learns() -> None:
    model = MVNet(shared_blocks=False)
    rd, ra = model.logits(torch.rand(2, 3, 16, 4), torch.rand(2, 3, 16, 16))
    (rd.square().sum() + ra.square().sum()).backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]
