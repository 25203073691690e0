from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from adperception.checkpoint.encoder_check import verify_encoder, write_encoder_check
from adperception.checkpoint.kernel_layout import from_krsc, to_krsc
from adperception.checkpoint.layout import CheckpointError
from adperception.models.backbones.voxel_backbone_8x import VoxelBackBone8x
from adperception.models.backbones.voxel_res_backbone_8x import VoxelResBackBone8x
from adperception.structures import VoxelGrid


@pytest.fixture(scope="module", params=[VoxelBackBone8x, VoxelResBackBone8x])
def state(request: pytest.FixtureRequest) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return request.param(4, VoxelGrid((0.0, 0.0, 0.0, 1.6, 1.6, 4.0), (0.1, 0.1, 0.1))).state_dict()


def test_a_pair_proves_the_layout_where_shapes_cannot(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    pair = tmp_path / "pair.npz"
    write_encoder_check(pair, state)
    assert verify_encoder(pair, state) < 1e-6
    # Inputs and outputs of one square kernel exchanged: every shape still fits.
    name = "conv4.1.0.weight" if "conv4.1.0.weight" in state else "conv4.1.conv1.weight"
    wrong = {**state, name: to_krsc(from_krsc({name: state[name]}, "RSCK"), "RSKC")[name]}
    assert wrong[name].shape == state[name].shape
    with pytest.raises(CheckpointError, match=r"another output: the largest difference is .* in another layout"):
        verify_encoder(pair, wrong)


def test_files_that_are_no_pair(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    with pytest.raises(FileNotFoundError, match="no stored pair"):
        verify_encoder(tmp_path / "gone.npz", state)
    np.savez(tmp_path / "other.npz", features=np.zeros(3))
    with pytest.raises(CheckpointError, match="is no stored pair with features, coordinates"):
        verify_encoder(tmp_path / "other.npz", state)
    with pytest.raises(CheckpointError, match=r"lacks conv_input\.0\.weight"):
        write_encoder_check(tmp_path / "new.npz", {})
