from __future__ import annotations

import pytest
import torch

from adperception.checkpoint.convert_ad_l_jepa import from_ad_l_jepa, to_ad_l_jepa
from adperception.models.pretrain.ad_l_jepa import ADLJEPA


@pytest.fixture(scope="module")
def model() -> ADLJEPA:
    return ADLJEPA([0, -1.6, -2, 3.2, 1.6, 2], [0.05, 0.05, 0.1])


def test_round_trip_of_168_tensors(model: ADLJEPA) -> None:
    theirs = to_ad_l_jepa(model.state_dict(), global_step=6960)
    assert len(theirs) == 168
    assert {"global_step", "backbone_3d.mask_token", "backbone_3d.encoder.conv4.2.1.running_var"} < set(theirs)
    assert theirs["backbone_3d.encoder.conv_out.0.weight"].shape == (128, 3, 1, 1, 64)
    assert theirs["backbone_3d.predictor.conv3.0.bias"].shape == (256,)
    ours, step = from_ad_l_jepa(theirs)
    assert step == 6960
    assert set(ours) == set(model.state_dict())
    assert all(torch.equal(ours[k], v) for k, v in model.state_dict().items())


def test_backbone_alone_has_167_tensors_and_no_step(model: ADLJEPA) -> None:
    theirs = to_ad_l_jepa(model.state_dict(), global_step=0)
    bare = {k.removeprefix("backbone_3d."): v.half() for k, v in theirs.items() if k != "global_step"}
    ours, step = from_ad_l_jepa({k: v.float() if v.is_floating_point() else v for k, v in bare.items()})
    assert len(bare) == 167
    assert step is None
    model.load_state_dict(ours, strict=True)


def test_foreign_tensor_is_named() -> None:
    with pytest.raises(ValueError, match=r'"dense_head\.conv_cls\.weight" is not a tensor of an AD-L-JEPA'):
        from_ad_l_jepa({"dense_head.conv_cls.weight": torch.zeros(1)})
